// What every material shares: maps, lights (0 key, 1 fill, 2 and 3 rims), the shadow of the key light, small maths.
uniform sampler2D colour_map;
uniform sampler2D normal_map;
uniform sampler2DShadow shadow_map;
uniform vec3 eye;
uniform vec3 light_direction[4];
uniform vec3 light_colour[4];
uniform vec3 sky;
uniform vec3 ground;
uniform vec3 tint;
uniform float cutoff;
uniform float gloss;
uniform float saturation;
uniform float bump;
uniform float softness;
in vec3 v_position;
in vec3 v_normal;
in vec2 v_uv;
in vec3 v_lamp;
in float v_occlusion;
out vec4 colour;

struct Light { vec3 diffuse; vec3 specular; };

float power(float base, float exponent) { return exp2(log2(max(base, 1e-5)) * exponent); }

// 1 where the key light reaches the surface, 0 in full shadow; four taps.
float lit() {
    vec3 q = v_lamp - vec3(0.0, 0.0, 0.0015);
    float t = softness;
    return 0.25 * (texture(shadow_map, q + vec3(-t, -t * 0.4, 0.0)) + texture(shadow_map, q + vec3(t * 0.4, -t, 0.0))
                 + texture(shadow_map, q + vec3(t, t * 0.4, 0.0)) + texture(shadow_map, q + vec3(-t * 0.4, t, 0.0)));
}

#if NORMAL_MAP
// Tangent frame from screen-space derivatives (Schueler, "Normal Mapping Without Precomputed Tangents").
vec3 bumped(vec3 n) {
    vec3 dx = dFdx(v_position), dy = dFdy(v_position);
    vec2 ux = dFdx(v_uv), uy = dFdy(v_uv);
    vec3 a = cross(dy, n), b = cross(n, dx);
    vec3 t = a * ux.x + b * uy.x, s = a * ux.y + b * uy.y;
    float scale = inversesqrt(max(max(dot(t, t), dot(s, s)), 1e-20));
    vec3 m = texture(normal_map, v_uv).xyz * 2.0 - 1.0;
    m.xy *= bump;
    return normalize(t * (scale * m.x) - s * (scale * m.y) + n * max(m.z, 0.2));
}
#endif
