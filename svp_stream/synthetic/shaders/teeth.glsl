// Teeth, gums and tongue: wrapped diffuse with one wet highlight.
vec3 oriented(vec3 n) { return n; }

Light lighting(vec3 n, vec3 smooth_n, vec3 view, vec3 albedo, float key, float open) {
    vec3 diffuse = vec3(0.0);
    for (int i = 0; i < 2; i++) {
        float wrapped = clamp((dot(n, light_direction[i]) + 0.25) * 0.8, 0.0, 1.0);
        diffuse += light_colour[i] * wrapped * (i == 0 ? mix(key, 1.0, 0.35) : 1.0);
    }
    float shine = power(dot(n, normalize(light_direction[0] + view)), 70.0) * 0.35;
    return Light(diffuse, light_colour[0] * (shine * key * gloss));
}
