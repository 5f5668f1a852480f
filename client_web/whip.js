// @ts-check
/**
 * WHIP over fetch: OPTIONS asks for STUN and TURN servers, POST makes a call, PATCH trickles candidates or restarts ICE,
 * DELETE ends the call (RFC 9725, RFC 8840).
 * In: SDP and candidates of the browser. Out: the server's answer, or a `CallError` that says what went wrong.
 * Remembers: the secret URL of the call, the entity tag of its ICE session, candidates that cannot be sent yet.
 */

import { CallError } from "./failures.js";

/** @typedef {{avatar?: string, style?: string, strength?: number, temperature?: number, echo?: boolean}} Wish */

const ASK_MS = 2_000;

/** @typedef {{ufrag: string, pwd: string, candidates: string[]}} Side what a fragment says of the other side */

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
    /** Whether the entity tag of the newest ICE session is not known yet (RFC 9725 section 4.3.3). */
    this.held = false;
  }

  /**
   * The STUN and TURN servers to use, with fresh credentials; none when the server does not say in time.
   * @param {number} [patienceMs]
   * @returns {Promise<RTCIceServer[]>}
   */
  async servers(patienceMs = ASK_MS) {
    try {
      const response = await this.#ask("/v1/call", { method: "OPTIONS", signal: AbortSignal.timeout(patienceMs) });
      return response.ok ? iceServers(response.headers.get("Link") ?? "") : [];
    } catch {
      return [];
    }
  }

  /**
   * Restarts ICE; asking again with the same description is harmless. Throws `CallError`; the call itself goes on.
   * @param {string} sdp the local description with its new user fragment
   * @param {number} patienceMs
   * @returns {Promise<Side>}
   */
  async restart(sdp, patienceMs) {
    if (!this.location) throw new CallError("ended");
    const ufrag = /a=ice-ufrag:(\S+)/.exec(sdp)?.[1] ?? "";
    this.held = ufrag !== this.ufrag || this.held;
    this.ufrag = ufrag;
    const pwd = /a=ice-pwd:(\S+)/.exec(sdp)?.[1] ?? "";
    const response = await this.#ask(this.location, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*" },
      body: `a=ice-ufrag:${ufrag}\r\na=ice-pwd:${pwd}\r\n`,
      signal: AbortSignal.timeout(patienceMs),
    });
    if (response.status === 404) throw new CallError("ended");
    if (response.status !== 200) throw await CallError.of(response);
    const side = readFragment(await response.text());
    if (ufrag === this.ufrag) {
      this.etag = response.headers.get("ETag") ?? "*";
      this.held = false;
      void this.#trickle();
    }
    return side;
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
    this.waiting = this.waiting.filter((c) => !c.usernameFragment || c.usernameFragment === this.ufrag);
    if (!this.location || this.held || this.sending || (!this.waiting.length && !this.complete)) return;
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
 * The servers in a `Link` header (RFC 9725 section 4.6, RFC 8288).
 * @param {string} header
 * @returns {RTCIceServer[]}
 */
export function iceServers(header) {
  const found = [];
  for (const [, urls, rest] of header.matchAll(/<([^>]*)>((?:;\s*[a-z-]+="(?:[^"\\]|\\.)*")*)/g)) {
    /** @type {Record<string, string>} */
    const said = {};
    for (const [, key, value] of (rest ?? "").matchAll(/;\s*([a-z-]+)="((?:[^"\\]|\\.)*)"/g)) {
      said[key ?? ""] = (value ?? "").replace(/\\(.)/g, "$1");
    }
    if (said.rel !== "ice-server" || !urls) continue;
    const { username, credential } = said;
    found.push(username === undefined ? { urls } : { urls, username, credential });
  }
  return found;
}

/**
 * The other side in an answered fragment.
 * @param {string} text
 * @returns {Side}
 */
export function readFragment(text) {
  return {
    ufrag: /^a=ice-ufrag:(\S+)/m.exec(text)?.[1] ?? "",
    pwd: /^a=ice-pwd:(\S+)/m.exec(text)?.[1] ?? "",
    candidates: [...new Set([...text.matchAll(/^a=(candidate:.*?)\r?$/gm)].map((match) => match[1] ?? ""))],
  };
}

/**
 * The answer as it is after an ICE restart: the same in all but the path.
 * @param {string} answer
 * @param {Side} side
 */
export function graft(answer, side) {
  const path = [`a=ice-ufrag:${side.ufrag}`, `a=ice-pwd:${side.pwd}`];
  const candidates = side.candidates.map((line) => `a=${line}`);
  const lines = [];
  for (const line of answer.split(/\r?\n/)) {
    if (line.startsWith("a=ice-ufrag:")) lines.push(...path, ...candidates.splice(0));
    else if (line && !/^a=(ice-pwd|candidate|end-of-candidates)/.test(line)) lines.push(line);
  }
  return lines.join("\r\n").replace(/^o=(\S+ \S+) (\d+)/m, (_, id, version) => `o=${id} ${+version + 1}`) + "\r\n";
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
