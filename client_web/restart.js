// @ts-check
/**
 * Keeps a call alive over a change of network: restarts ICE when nothing comes in any more.
 * In: a connection, its WHIP resource, its answer. Out: the same connection on a new path, or the code of a failure.
 * Remembers: the last answer, whether a restart is under way, when the last bytes came.
 *
 * A browser takes 5 s and more to find out that a path is dead, and the server waits for a silent caller for 4 s: the
 * bytes are watched here, for the server sends at all times. A restart too many is cheap: the old path goes on until the
 * other one works. The TCP connection that the browser kept for its next request may have gone over the dead path too: a
 * question without an answer is soon given up, which closes that connection, and asked again with more patience.
 */

import { CallError } from "./failures.js";
import { graft } from "./whip.js";

const LOOK_MS = 100;
const SILENT_MS = 300;
const DISCONNECTED_MS = 200;
const AGAIN_MS = 300;
const PATIENCE_MS = 250;
const MOST_PATIENCE_MS = 4_000;
const SETTLE_MS = 1_000;

/**
 * @typedef {object} Resource
 * @property {(patienceMs: number) => Promise<RTCIceServer[]>} servers
 * @property {(sdp: string, patienceMs: number) => Promise<import("./whip.js").Side>} restart
 */

export class Restarter {
  /**
   * @param {RTCPeerConnection} connection connected
   * @param {Resource} resource
   * @param {string} answer the first answer
   * @param {(code: string) => void} failed the server has ended the call
   */
  constructor(connection, resource, answer, failed) {
    this.connection = connection;
    this.resource = resource;
    this.answer = answer;
    this.failed = failed;
    this.busy = false;
    this.over = false;
    this.restarts = 0;
    this.bytes = 0;
    this.heardMs = performance.now();
    this.notBeforeMs = 0;
    this.disconnected = 0;
    this.looking = window.setInterval(() => void this.#look(), LOOK_MS);
    this.changed = () => void this.restart();
    this.stateChanged = () => this.#stateChanged();
    window.addEventListener("online", this.changed);
    /** @type {any} */ (navigator).connection?.addEventListener("change", this.changed);
    connection.addEventListener("connectionstatechange", this.stateChanged);
  }

  close() {
    this.over = true;
    clearInterval(this.looking);
    clearTimeout(this.disconnected);
    window.removeEventListener("online", this.changed);
    /** @type {any} */ (navigator).connection?.removeEventListener("change", this.changed);
    this.connection.removeEventListener("connectionstatechange", this.stateChanged);
  }

  /** Restarts now, unless it is under way; asks until the server has answered. */
  async restart() {
    if (this.busy || this.over) return;
    this.busy = true;
    try {
      await this.#fresh();
      this.connection.restartIce();
      await this.connection.setLocalDescription();
      const side = await this.#ask();
      if (side && !this.over) {
        this.answer = graft(this.answer, side);
        await this.connection.setRemoteDescription({ type: "answer", sdp: this.answer });
        this.restarts += 1;
      }
    } catch {
      // The connection was closed meanwhile, or its state forbids a restart: the next look tries again.
    }
    this.busy = false;
    this.heardMs = performance.now();
    this.notBeforeMs = this.heardMs + SETTLE_MS;
  }

  /** Credentials for TURN may have expired since the call began. */
  async #fresh() {
    const { connection } = this;
    if (!connection.getConfiguration().iceServers?.length) return;
    const iceServers = await this.resource.servers(2 * PATIENCE_MS);
    if (iceServers.length) connection.setConfiguration({ ...connection.getConfiguration(), iceServers });
  }

  /** The server's side; null when the call has ended. */
  async #ask() {
    for (let patienceMs = PATIENCE_MS; !this.over; patienceMs = Math.min(2 * patienceMs, MOST_PATIENCE_MS)) {
      const asked = performance.now();
      try {
        return await this.resource.restart(this.connection.localDescription?.sdp ?? "", patienceMs);
      } catch (error) {
        if (error instanceof CallError && error.code === "ended") {
          this.failed("ended");
          return null;
        }
        const early = Math.max(AGAIN_MS - (performance.now() - asked), 0);
        await new Promise((resolve) => setTimeout(resolve, early));
      }
    }
    return null;
  }

  async #look() {
    if (this.busy || this.over) return;
    let bytes = 0;
    for (const report of (await this.connection.getStats()).values()) {
      if (report.type === "transport") bytes += report.bytesReceived ?? 0;
    }
    const now = performance.now();
    if (bytes !== this.bytes) [this.bytes, this.heardMs] = [bytes, now];
    else if (now - this.heardMs > SILENT_MS && now > this.notBeforeMs) await this.restart();
  }

  #stateChanged() {
    clearTimeout(this.disconnected);
    const state = this.connection.connectionState;
    if (state === "failed") void this.restart();
    if (state === "disconnected") this.disconnected = window.setTimeout(this.changed, DISCONNECTED_MS);
  }
}
