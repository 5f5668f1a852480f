// @ts-check
/**
 * A packed picture (colour above, matte as grey below) back into one with transparency.
 * In: a playing video. Out: a canvas whose pixels are multiplied by their alpha, as browsers keep them.
 * Remembers: what the graphics card holds. Without WebGL the same is done by hand, slower.
 */

/** The matte comes through a codec, so its ends are noisy: what is below and above these counts as 0 and 1. */
const CLEAR = 10 / 255;
const SOLID = 245 / 255;

const VERTEX = `
attribute vec2 corner;
varying vec2 place;
void main() {
  place = corner * 0.5 + 0.5;
  gl_Position = vec4(corner, 0.0, 1.0);
}`;

/**
 * The loop filter of a codec lets the halves run into each other for this many rows. Of the colours the next row stands
 * in for them; the matte there is never more than in the next row, and taken for 0 or 1 sooner.
 */
const SEAM = 3;

/** `row` is half a row of the video, `seam` where the rows begin that know nothing of the other half. */
const FRAGMENT = `
precision mediump float;
uniform sampler2D video;
uniform float row;
uniform float seam;
uniform vec2 ends;
varying vec2 place;
float stretched(float y, vec2 between) {
  vec3 matte = texture2D(video, vec2(place.x, clamp(y, row, 0.5 - row))).rgb;
  return clamp((dot(matte, vec3(0.299, 0.587, 0.114)) - between.x) / (between.y - between.x), 0.0, 1.0);
}
void main() {
  float y = place.y * 0.5;
  vec3 colour = texture2D(video, vec2(place.x, clamp(y, seam, 0.5 - row) + 0.5)).rgb;
  float alpha = stretched(y, ends);
  if (y > 0.5 - seam) alpha = min(stretched(0.5 - seam, ends), stretched(y, vec2(0.25, 0.75)));
  gl_FragColor = vec4(colour * alpha, alpha);
}`;

/**
 * The one that this browser can use.
 * @param {HTMLCanvasElement} canvas
 * @param {boolean} [byHand] do without WebGL
 * @returns {{draw: (video: HTMLVideoElement) => void, kind: "webgl" | "2d"}}
 */
export function painter(canvas, byHand = false) {
  const gl = byHand ? null : canvas.getContext("webgl", {
    alpha: true, premultipliedAlpha: true, antialias: false, depth: false, stencil: false, powerPreference: "low-power",
  });
  return gl ? new Card(canvas, gl) : new Hand(canvas);
}

class Card {
  kind = /** @type {const} */ ("webgl");

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {WebGLRenderingContext} gl
   */
  constructor(canvas, gl) {
    this.canvas = canvas;
    this.gl = gl;
    /** @type {WebGLUniformLocation | null} */
    this.row = null;
    /** @type {WebGLUniformLocation | null} */
    this.seam = null;
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => this.#begin());
    this.#begin();
  }

  /** @param {HTMLVideoElement} video */
  draw(video) {
    const { gl, canvas } = this;
    if (gl.isContextLost() || !fit(canvas, video)) return;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, video);
    gl.uniform1f(this.row, 0.5 / video.videoHeight);
    gl.uniform1f(this.seam, (SEAM + 0.5) / video.videoHeight);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  #begin() {
    const { gl } = this;
    const program = /** @type {WebGLProgram} */ (gl.createProgram());
    for (const [kind, text] of /** @type {const} */ ([[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]])) {
      const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, "corner");
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const [name, value] of /** @type {const} */ ([
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
      [gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
    ])) gl.texParameteri(gl.TEXTURE_2D, name, value);
    gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
    gl.uniform2f(gl.getUniformLocation(program, "ends"), CLEAR, SOLID);
    this.row = gl.getUniformLocation(program, "row");
    this.seam = gl.getUniformLocation(program, "seam");
  }
}

class Hand {
  kind = /** @type {const} */ ("2d");

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.target = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.whole = document.createElement("canvas");
    this.source = /** @type {CanvasRenderingContext2D} */ (
      this.whole.getContext("2d", { willReadFrequently: true, alpha: false })
    );
  }

  /** @param {HTMLVideoElement} video */
  draw(video) {
    if (!fit(this.canvas, video)) return;
    const { width, height } = this.canvas;
    if (this.whole.width !== width || this.whole.height !== 2 * height) {
      this.whole.width = width;
      this.whole.height = 2 * height;
    }
    this.source.drawImage(video, 0, 0, width, 2 * height);
    const colour = this.source.getImageData(0, 0, width, height);
    unpack(colour.data, this.source.getImageData(0, height, width, height).data, width);
    this.target.putImageData(colour, 0, 0);
  }
}

/**
 * Writes the matte into the alpha of the colours.
 * @param {Uint8ClampedArray} colour RGBA
 * @param {Uint8ClampedArray} matte RGBA, grey
 * @param {number} width
 */
export function unpack(colour, matte, width) {
  const row = 4 * width;
  const last = colour.length - SEAM * row;
  for (let i = last; i < colour.length; i += row) colour.copyWithin(i, last - row, last);
  for (let i = 0; i < colour.length; i += 4) colour[i + 3] = stretched(matte, i, CLEAR, SOLID);
  for (let i = 0; i < SEAM * row; i += 4) {
    colour[i + 3] = Math.min(colour[SEAM * row + (i % row) + 3] ?? 0, stretched(matte, i, 0.25, 0.75));
  }
}

/**
 * @param {Uint8ClampedArray} matte
 * @param {number} i
 * @param {number} low from 0 to 1: here the matte begins
 * @param {number} high
 */
function stretched(matte, i, low, high) {
  const grey = 0.299 * (matte[i] ?? 0) + 0.587 * (matte[i + 1] ?? 0) + 0.114 * (matte[i + 2] ?? 0);
  return (grey - 255 * low) / (high - low);
}

/**
 * Gives the canvas the size of one half; whether there is anything to draw.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLVideoElement} video
 */
function fit(canvas, video) {
  const width = video.videoWidth;
  const height = video.videoHeight >> 1;
  if (!width || !height) return false;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return true;
}
