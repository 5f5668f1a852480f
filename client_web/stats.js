// @ts-check
/**
 * The figures over the picture: what arrives here, and what the server tells once a second.
 * In: a video element, a peer connection, `stats` events. Out: the overlay. Remembers: the frames of the last second.
 *
 * Latency is from a sound at the microphone to the picture that shows it: the server's own delay, the round trip of the
 * network, and the browser's jitter buffer.
 */

import { element } from "./stage.js";

const WINDOW_MS = 1_000;

export class Stats {
  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.video = video;
    /** @type {number[]} */
    this.shown = [];
    /** @type {Record<string, any>} */
    this.told = {};
    this.bufferMs = 0;
    this.buffered = { delay: 0, count: 0 };
    if ("requestVideoFrameCallback" in video) this.#watch();
  }

  /** @param {Record<string, any>} event */
  take(event) {
    this.told = event;
  }

  reset() {
    this.shown = [];
    this.told = {};
    this.bufferMs = 0;
    this.buffered = { delay: 0, count: 0 };
    for (const id of ["fps", "latency", "round-trip", "level", "drops"]) element(id).textContent = "–";
  }

  /**
   * Once a second.
   * @param {RTCPeerConnection} connection
   * @param {number | null} roundTrip ms
   */
  async draw(connection, roundTrip) {
    await this.#buffer(connection);
    const now = performance.now();
    this.shown = this.shown.filter((at) => now - at <= WINDOW_MS);
    element("fps").textContent = `${this.shown.length} fps`;
    const server = this.told.latency_ms;
    const whole = (server ?? 0) + (roundTrip ?? 0) + this.bufferMs;
    element("latency").textContent = typeof server === "number" ? `${Math.round(whole)} ms` : "–";
    element("round-trip").textContent = roundTrip === null ? "–" : `${roundTrip.toFixed(roundTrip < 10 ? 1 : 0)} ms`;
    element("level").textContent = this.told.level_name ?? "–";
    const drops = this.told.drops ? Object.values(this.told.drops).reduce((sum, n) => sum + n, 0) : null;
    element("drops").textContent = drops === null ? "–" : String(drops);
  }

  #watch() {
    this.video.requestVideoFrameCallback((now) => {
      this.shown.push(now);
      if (this.shown.length > 240) this.shown.shift();
      this.#watch();
    });
  }

  /** @param {RTCPeerConnection} connection */
  async #buffer(connection) {
    const report = await connection.getStats().catch(() => null);
    report?.forEach((entry) => {
      if (entry.type !== "inbound-rtp" || entry.kind !== "video") return;
      const delay = entry.jitterBufferDelay ?? 0;
      const count = entry.jitterBufferEmittedCount ?? 0;
      const frames = count - this.buffered.count;
      if (frames > 0) this.bufferMs = ((delay - this.buffered.delay) / frames) * 1000;
      this.buffered = { delay, count };
    });
  }
}
