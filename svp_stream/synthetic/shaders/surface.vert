// A skinned vertex of the person for the camera, with its place in the shadow map.
uniform mat4 camera;
uniform mat4 lamp;
out vec3 v_position;
out vec3 v_normal;
out vec2 v_uv;
out vec3 v_lamp;
out float v_occlusion;

const float SHADOW_OFFSET = 0.0015;  // metres along the normal: keeps a surface out of its own shadow

void main() {
    mat4 pose = blended();
    vec4 position = vec4((pose * vec4(in_position, 1.0)).xyz, 1.0);
    v_position = position.xyz;
    v_normal = normalize(mat3(pose) * in_normal);
    v_uv = in_uv;
    v_occlusion = in_occlusion;
    v_lamp = (lamp * vec4(v_position + v_normal * SHADOW_OFFSET, 1.0)).xyz * 0.5 + 0.5;
    gl_Position = camera * position;
}
