// Eyeball: soft diffuse and a sharp highlight of the key light that even a shaded eye keeps.
vec3 oriented(vec3 n) { return n; }

Light lighting(vec3 n, vec3 smooth_n, vec3 view, vec3 albedo, float key, float open) {
    vec3 diffuse = vec3(0.0), specular = vec3(0.0);
    for (int i = 0; i < 2; i++) {
        vec3 l = light_direction[i];
        float wrapped = clamp((dot(n, l) + 0.3) * 0.77, 0.0, 1.0);
        diffuse += light_colour[i] * wrapped * (i == 0 ? mix(key, 1.0, 0.35) : 1.0);
        float shine = power(dot(n, normalize(l + view)), 420.0) * 5.0;
        specular += light_colour[i] * (shine * (i == 0 ? max(key, 0.3) : 0.12));
    }
    return Light(diffuse, specular * gloss);
}
