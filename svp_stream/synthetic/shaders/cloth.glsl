// Cloth: plain diffuse, the same on both sides.
vec3 oriented(vec3 n) { return gl_FrontFacing ? n : -n; }

Light lighting(vec3 n, vec3 smooth_n, vec3 view, vec3 albedo, float key, float open) {
    vec3 diffuse = vec3(0.0);
    for (int i = 0; i < 4; i++) {
        float reach = i == 0 ? key : (i >= 2 ? open * open : 1.0);
        diffuse += light_colour[i] * max(dot(n, light_direction[i]), 0.0) * reach;
    }
    return Light(diffuse, vec3(0.0));
}
