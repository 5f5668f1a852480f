// Linear blend skinning with two bones: `bones[0]` the head, `bones[1]` the neck; the rest of the weight stands still.
uniform mat4 bones[2];
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in float in_occlusion;
in vec2 in_weights;

mat4 blended() {
    return mat4(1.0 - in_weights.x - in_weights.y) + bones[0] * in_weights.x + bones[1] * in_weights.y;
}
