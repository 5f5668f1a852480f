// A skinned vertex seen from the key light.
uniform mat4 lamp;
out vec2 v_uv;

void main() {
    v_uv = in_uv;
    gl_Position = lamp * vec4((blended() * vec4(in_position, 1.0)).xyz, 1.0);
}
