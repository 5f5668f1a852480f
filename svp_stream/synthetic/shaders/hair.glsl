// Hair cards: wrapped diffuse and an anisotropic highlight along strands that fall downwards (Kajiya and Kay 1989).
vec3 oriented(vec3 n) { return dot(n, eye - v_position) < 0.0 ? -n : n; }

Light lighting(vec3 n, vec3 smooth_n, vec3 view, vec3 albedo, float key, float open) {
    vec3 strand = normalize(vec3(0.0, -smooth_n.z, smooth_n.y) + 1e-5);
    vec3 diffuse = vec3(0.0), specular = vec3(0.0);
    for (int i = 0; i < 4; i++) {
        vec3 l = light_direction[i];
        float nl = dot(n, l), reach = i == 0 ? key : 1.0;
        diffuse += light_colour[i] * (clamp((nl + 0.35) * 0.74, 0.0, 1.0) * mix(reach, 1.0, 0.15));
        if (i < 3) {
            float along = dot(strand, normalize(l + view));
            float shine = power(1.0 - along * along, 19.0) * 0.55 * max(nl + 0.2, 0.0) * reach;
            specular += light_colour[i] * (albedo * 0.9 + 0.03) * shine;
        }
    }
    return Light(diffuse, specular * gloss);
}
