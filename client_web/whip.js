// @ts-check
/**
 * WHIP over fetch: POST makes a call, PATCH trickles candidates, DELETE ends it (RFC 9725, RFC 8840).
 * In: SDP and candidates of the browser. Out: the server's answer, or a `CallError` that says what went wrong.
 * Remembers: the secret URL of the call and its entity tag.
 */

import { CallError } from "./failures.js";

/** @typedef {{avatar?: string, style?: string, strength?: number, temperature?: number, echo?: boolean}} Wish */

export class WhipCall {
  /** @param {string | null} token what the server wants to know, null for none */
  constructor(token) {
    this.token = token;
    /** @type {string | null} */
    this.location = null;
    this.etag = "";
    /** @type {RTCIceCandidate[]} */
    this.waiting = [];
    this.complete = false;
    this.ufrag = "";
    this.sending = false;
  }

  /**
   * Makes the call. Throws `CallError`.
   * @param {string} sdp the offer
   * @param {Wish} wish what to begin with
   * @returns {Promise<string>} the answer
   */
  async create(sdp, wish) {
    this.ufrag = /a=ice-ufrag:(\S+)/.exec(sdp)?.[1] ?? "";
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(wish)) {
      if (value !== undefined) query.set(key, String(value));
    }
    const response = await this.#ask(`/v1/call?${query}`, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: sdp,
    });
    if (response.status !== 201) throw await CallError.of(response);
    this.location = response.headers.get("Location");
    this.etag = response.headers.get("ETag") ?? "*";
    const answer = await response.text();
    void this.#trickle();
    return answer;
  }

  /**
   * A candidate was found; null says that there are no more. Batches while a PATCH is on its way.
   * @param {RTCIceCandidate | null} candidate
   */
  found(candidate) {
    if (candidate === null || candidate.candidate === "") this.complete = true;
    else this.waiting.push(candidate);
    void this.#trickle();
  }

  /** Ends the call; also works while the page goes away. */
  end() {
    const location = this.location;
    this.location = null;
    if (location) this.#ask(location, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  async #trickle() {
    if (!this.location || this.sending || (!this.waiting.length && !this.complete)) return;
    this.sending = true;
    const body = fragment(this.ufrag, this.waiting, this.complete);
    this.waiting = [];
    const last = this.complete;
    try {
      await this.#ask(this.location, {
        method: "PATCH",
        headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this.etag },
        body,
      });
    } catch {
      // The connection may come up with the candidates that arrived; if not, the peer says so.
    }
    this.sending = false;
    if (last) this.complete = false;
    if (this.waiting.length) void this.#trickle();
  }

  /**
   * @param {string} path
   * @param {RequestInit & {headers?: Record<string, string>}} init
   */
  async #ask(path, init) {
    const headers = { ...init.headers, ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}) };
    try {
      return await fetch(path, { ...init, headers });
    } catch (error) {
      throw new CallError("unreachable", String(error));
    }
  }
}

/**
 * The text of a trickled fragment.
 * @param {string} ufrag
 * @param {RTCIceCandidate[]} candidates
 * @param {boolean} complete
 */
export function fragment(ufrag, candidates, complete) {
  const lines = [`a=ice-ufrag:${ufrag}`];
  for (const mid of new Set(candidates.map((c) => c.sdpMid ?? "0"))) {
    lines.push("m=audio 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${mid}`);
    for (const c of candidates) if ((c.sdpMid ?? "0") === mid) lines.push(`a=${c.candidate}`);
  }
  if (complete) lines.push("a=end-of-candidates");
  return lines.join("\r\n") + "\r\n";
}
