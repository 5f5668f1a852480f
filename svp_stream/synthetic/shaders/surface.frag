// Puts a material's light together with ambient light and occlusion, and cuts out hair.
void main() {
    vec4 texel = texture(colour_map, v_uv);
#if CUTOUT
    if (texel.a < cutoff) discard;
#endif
    vec3 albedo = texel.rgb * texel.rgb * (texel.rgb * 0.305 + 0.695) * tint;
    albedo = mix(vec3(dot(albedo, vec3(0.3, 0.6, 0.1))), albedo, saturation);
    vec3 smooth_normal = oriented(normalize(v_normal));
    vec3 normal = smooth_normal;
#if NORMAL_MAP
    normal = bumped(normal);
#endif
    vec3 view = normalize(eye - v_position);
    Light light = lighting(normal, smooth_normal, view, albedo, lit(), v_occlusion);
    vec3 ambient = mix(ground, sky, normal.y * 0.5 + 0.5) * AMBIENT;
    vec3 open = occlusion(v_occlusion);
    vec3 sum = albedo * (light.diffuse * mix(vec3(1.0), open, 0.6) + ambient * open) + light.specular * v_occlusion;
#if CUTOUT
    colour = vec4(filmic(inside(sum)), clamp((texel.a - cutoff) / (1.0 - cutoff) * 1.6, 0.0, 1.0));
#else
    colour = vec4(filmic(inside(sum)), 1.0);
#endif
}
