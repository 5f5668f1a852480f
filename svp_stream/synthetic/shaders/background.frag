// A soft radial gradient behind the person; alpha 0 keeps it out of the matte.
uniform vec3 inner;
uniform vec3 outer;
in vec2 v_place;
out vec4 colour;

void main() {
    float away = length((v_place - vec2(0.5, 0.55)) * vec2(1.0, 0.9));
    colour = vec4(filmic(mix(inner, outer, smoothstep(0.05, 0.85, away))), 0.0);
}
