// @ts-check
/**
 * Watching a session over WHEP (draft-ietf-wish-whep): POST an offer, take the answer, DELETE at the end.
 * In: the id of a session. Out: its tracks, or a `WhepError` with the status of the server's answer.
 * Remembers: the connection and its secret URL. Candidates go with the offer: a viewer has few of them.
 */

import { iceServers } from "./whip.js";

const GATHER_MS = 1500;

export class WhepError extends Error {
  /**
   * @param {number} status of the answer; 0: the server cannot be reached
   * @param {string} words
   */
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export class Viewer {
  /**
   * @param {string | null} token
   * @param {(track: MediaStreamTrack) => void} show
   * @param {() => void} gone the connection has failed; at most once, never after `close`
   */
  constructor(token, show, gone) {
    this.token = token;
    this.show = show;
    this.gone = gone;
    /** @type {RTCPeerConnection | null} */
    this.connection = null;
    /** @type {string | null} */
    this.location = null;
    this.over = false;
  }

  /**
   * Resolves when the answer is taken; the picture may still take a moment. Throws `WhepError`.
   * @param {string} session
   * @param {"plain" | "packed"} layout
   */
  async watch(session, layout) {
    const path = `/v1/whep/${encodeURIComponent(session)}`;
    const told = await ask(path, this.token, { method: "OPTIONS" });
    const connection = new RTCPeerConnection({ iceServers: iceServers(told.headers.get("Link") ?? "") });
    this.connection = connection;
    connection.addEventListener("track", ({ track, receiver }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      // a server that says goodbye closes the DTLS association; the connection itself notices seconds later
      receiver.transport?.addEventListener("statechange", () => receiver.transport?.state === "closed" && this.#lost());
      this.show(track);
    });
    connection.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(connection.connectionState)) this.#lost();
    });
    connection.addTransceiver("video", { direction: "recvonly" });
    connection.addTransceiver("audio", { direction: "recvonly" });
    await connection.setLocalDescription();
    await gathered(connection);
    const response = await ask(`${path}?layout=${layout}`, this.token, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: connection.localDescription?.sdp ?? "",
    });
    this.location = response.headers.get("Location");
    const sdp = await response.text();
    if (this.over) this.#leave();
    else await connection.setRemoteDescription({ type: "answer", sdp });
  }

  /** Idempotent; also works while the page goes away. */
  close() {
    this.over = true;
    this.#leave();
    this.connection?.close();
  }

  #lost() {
    if (this.over) return;
    this.close();
    this.gone();
  }

  #leave() {
    const location = this.location;
    this.location = null;
    if (location) ask(location, this.token, { method: "DELETE", keepalive: true }).catch(() => {});
  }
}

/**
 * `fetch` with the token; throws `WhepError` unless the answer is a good one.
 * @param {string} path
 * @param {string | null} token
 * @param {RequestInit & {headers?: Record<string, string>}} [init]
 */
export async function ask(path, token, init = {}) {
  const headers = { ...init.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    throw new WhepError(0, String(error));
  }
  if (!response.ok) throw new WhepError(response.status, await response.text().catch(() => response.statusText));
  return response;
}

/** @param {RTCPeerConnection} connection */
function gathered(connection) {
  return new Promise((resolve) => {
    const look = () => connection.iceGatheringState === "complete" && resolve(undefined);
    connection.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, GATHER_MS);
    look();
  });
}
