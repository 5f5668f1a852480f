// Skin: warm wrapped diffuse that bleeds red at the terminator and two specular lobes (GGX); the inside of the mouth
// is nearly black.
#define AMBIENT vec3(1.05, 0.99, 0.96)
const vec3 WRAP = vec3(0.45, 0.18, 0.12);
const vec3 BLUR = vec3(0.75, 0.35, 0.2);  // how much of the bump each colour loses under the skin

vec3 oriented(vec3 n) { return n; }
vec3 occlusion(float open) { return vec3(mix(sqrt(open), open, 0.5), open, open * mix(1.0, open, 0.08)); }
vec3 inside(vec3 sum) { return gl_FrontFacing ? sum : vec3(0.012, 0.003, 0.003); }

float lobe(float nh2, float rough2) {
    float d = nh2 * (rough2 - 1.0) + 1.0;
    return rough2 / (3.14159 * d * d);
}

Light lighting(vec3 n, vec3 smooth_n, vec3 view, vec3 albedo, float key, float open) {
    vec3 diffuse = vec3(0.0), specular = vec3(0.0);
    for (int i = 0; i < 4; i++) {
        vec3 l = light_direction[i];
        vec3 d = clamp((mix(vec3(dot(n, l)), vec3(dot(smooth_n, l)), BLUR) + WRAP) / (1.0 + WRAP), 0.0, 1.0);
        d *= d * 0.35 + 0.65;
        if (i == 0) d *= mix(vec3(key), vec3(1.0), vec3(0.22, 0.05, 0.03) * (1.0 - key));
        if (i >= 2) d *= open * open;
        diffuse += light_colour[i] * d;
    }
    float nv = max(dot(n, view), 1e-3);
    for (int i = 0; i < 3; i++) {
        vec3 l = light_direction[i];
        vec3 h = normalize(l + view);
        float nh = max(dot(n, h), 0.0), nl = max(dot(n, l), 0.0);
        float f = 1.0 - max(dot(view, h), 0.0), f2 = f * f;
        float fresnel = 0.028 + 0.972 * f2 * f2 * f;
        float visible = 0.25 / ((nv * 0.62 + 0.38) * (nl * 0.62 + 0.38));
        float reach = i == 0 ? key : (i == 2 ? open * open : 1.0);
        float shine = 0.65 * lobe(nh * nh, 0.078) + 0.35 * lobe(nh * nh, 0.012);
        specular += light_colour[i] * (shine * visible * fresnel * nl * reach);
    }
    return Light(diffuse, specular * gloss);
}
