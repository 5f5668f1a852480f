// A filmic shoulder and the sRGB transfer curve, without branches.
vec3 filmic(vec3 linear) {
    vec3 film = max(linear * (1.0 + linear * 0.111) / (1.0 + linear * 0.62), 0.0);
    return max(1.055 * exp2(log2(film + 1e-6) * 0.41667) - 0.055, 0.0);
}
