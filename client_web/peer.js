// @ts-check
/**
 * One call: the peer connection from offer to hang-up.
 * In: a microphone track or none, a wish. Out: tracks, events of the data channel, one `CallError` when it fails.
 * Remembers: the connection, its WHIP resource, what restarts ICE. Picture and voice come in streams of their own, so
 * that the browser does not hold the picture back for the voice.
 */

import { Control, LABEL } from "./control.js";
import { CallError } from "./failures.js";
import { Restarter } from "./restart.js";
import { WhipCall } from "./whip.js";

const CONNECT_MS = 12_000;
const PATIENCE_MS = 10_000;

/**
 * @typedef {object} Ears
 * @property {(track: MediaStreamTrack) => void} track
 * @property {(event: import("./control.js").Event) => void} event
 * @property {() => void} connected
 * @property {(error: CallError) => void} failed at most once, never after `hangUp`
 */

export class Peer {
  /**
   * @param {string | null} token
   * @param {Ears} ears
   */
  constructor(token, ears) {
    if (!window.RTCPeerConnection) throw new CallError("no-webrtc");
    this.ears = ears;
    this.whip = new WhipCall(token);
    this.connection = new RTCPeerConnection({ iceServers: [], bundlePolicy: "max-bundle" });
    this.control = new Control(this.connection.createDataChannel(LABEL), (event) => this.#event(event));
    this.over = false;
    this.connectedOnce = false;
    this.timer = 0;
    this.answer = "";
    /** @type {Restarter | null} */
    this.restarter = null;
    this.connection.addEventListener("icecandidate", ({ candidate }) => this.whip.found(candidate));
    this.connection.addEventListener("connectionstatechange", () => this.#changed());
    this.connection.addEventListener("track", ({ track, receiver }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      ears.track(track);
    });
    this.control.channel.addEventListener("close", () => this.#fail("ended"));
  }

  /**
   * Calls. Throws `CallError`; later failures go to `ears.failed`.
   * @param {MediaStreamTrack | null} microphone
   * @param {import("./whip.js").Wish} wish
   */
  async call(microphone, wish) {
    const { connection } = this;
    if (microphone) connection.addTransceiver(microphone, { direction: "sendrecv" });
    else connection.addTransceiver("audio", { direction: "recvonly" });
    connection.addTransceiver("video", { direction: "recvonly" });
    const iceServers = await this.whip.servers();
    if (iceServers.length) connection.setConfiguration({ ...connection.getConfiguration(), iceServers });
    await connection.setLocalDescription();
    const answer = await this.whip.create(connection.localDescription?.sdp ?? "", wish);
    if (this.over) {
      this.whip.end();
      return;
    }
    this.answer = answer;
    this.#await(CONNECT_MS, "no-path");
    await connection.setRemoteDescription({ type: "answer", sdp: answer });
  }

  hangUp() {
    this.over = true;
    clearTimeout(this.timer);
    this.restarter?.close();
    this.whip.end();
    this.connection.close();
  }

  /** @param {import("./control.js").Event} event */
  #event(event) {
    if (event.type === "error" && event.code === "engine") this.#fail("engine", event.message);
    else if (!this.over) this.ears.event(event);
  }

  #changed() {
    const state = this.connection.connectionState;
    if (state === "connected") {
      clearTimeout(this.timer);
      if (!this.connectedOnce && !this.over) this.ears.connected();
      this.connectedOnce = true;
      this.restarter ??= new Restarter(this.connection, this.whip, this.answer, (code) => this.#fail(code));
    } else if (state === "failed" && !this.connectedOnce) {
      this.#fail("no-path");
    } else if (state === "disconnected" || state === "failed") {
      this.#await(PATIENCE_MS, "lost");
    }
  }

  /**
   * @param {number} ms
   * @param {string} code
   */
  #await(ms, code) {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.#fail(code), ms);
  }

  /**
   * @param {string} code
   * @param {string} [detail]
   */
  #fail(code, detail = "") {
    if (this.over) return;
    this.hangUp();
    this.ears.failed(new CallError(code, detail));
  }
}
