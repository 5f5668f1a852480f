// @ts-check
/**
 * The microphone: asked for once a call, with a level for the meter.
 * In: the person's permission. Out: a MediaStreamTrack; `level` in [0, 1]. Remembers: the track, an analyser.
 */

import { CallError } from "./failures.js";

export class Mic {
  /** @param {MediaStream} stream */
  constructor(stream) {
    this.stream = stream;
    this.track = /** @type {MediaStreamTrack} */ (stream.getAudioTracks()[0]);
    this.context = new AudioContext();
    this.analyser = this.context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.context.createMediaStreamSource(stream).connect(this.analyser);
    this.samples = new Float32Array(this.analyser.fftSize);
    void this.context.resume();
  }

  /** Asks for the microphone. Throws `CallError`. */
  static async open() {
    if (!window.isSecureContext) throw new CallError("insecure");
    if (!navigator.mediaDevices?.getUserMedia) throw new CallError("no-webrtc");
    try {
      const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
      return new Mic(await navigator.mediaDevices.getUserMedia({ audio, video: false }));
    } catch (error) {
      throw CallError.ofMicrophone(error);
    }
  }

  /** Loudness of the last 20 ms, 0 (silence, -60 dB) to 1 (full scale). */
  get level() {
    if (!this.track.enabled) return 0;
    this.analyser.getFloatTimeDomainData(this.samples);
    let square = 0;
    for (const sample of this.samples) square += sample * sample;
    const db = 10 * Math.log10(square / this.samples.length + 1e-9);
    return Math.min(1, Math.max(0, (db + 60) / 60));
  }

  /** @param {boolean} on */
  mute(on) {
    this.track.enabled = !on;
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    void this.context.close().catch(() => {});
  }
}
