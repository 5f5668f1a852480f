// Averages factor x factor samples to one pixel.
uniform sampler2D picture;
uniform int factor;
out vec4 colour;

void main() {
    ivec2 corner = ivec2(gl_FragCoord.xy) * factor;
    vec4 sum = vec4(0.0);
    for (int i = 0; i < factor; i++)
        for (int j = 0; j < factor; j++)
            sum += texelFetch(picture, corner + ivec2(i, j), 0);
    colour = sum / float(factor * factor);
}
