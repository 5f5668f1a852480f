// Depth only; cut-outs (hair cards) let the light through where they are thin.
uniform sampler2D colour_map;
uniform float cutoff;
in vec2 v_uv;

void main() {
    if (cutoff > 0.0 && texture(colour_map, v_uv).a < cutoff + 0.2) discard;
}
