// @ts-check
/**
 * Every way in which a call can fail, in words for the person in front of the screen.
 * In: codes. Out: a title, what to do, and whether it is worth going on without a microphone. Remembers: nothing.
 */

/** @typedef {{title: string, words: string, watch?: boolean}} Failure */

/** @type {Record<string, Failure>} */
const FAILURES = {
  insecure: {
    title: "This page is not secure",
    words: "Browsers give a microphone only to secure pages. Open the page over https://, or on the server's own "
      + "machine under http://localhost.",
    watch: true,
  },
  "no-webrtc": {
    title: "This browser cannot make calls",
    words: "It has no WebRTC, or it is switched off. A current Chrome, Edge, Firefox or Safari will do.",
  },
  "no-microphone": {
    title: "No microphone found",
    words: "Plug one in or switch it on in the system settings, then try again.",
    watch: true,
  },
  denied: {
    title: "The microphone was refused",
    words: "Allow it with the icon beside the address, then try again.",
    watch: true,
  },
  "mic-busy": {
    title: "The microphone is in use",
    words: "Another program holds it. Close that program, or choose another microphone, then try again.",
    watch: true,
  },
  full: {
    title: "The server is full",
    words: "All places are taken. Try again in a moment.",
  },
  warming: {
    title: "The server is getting ready",
    words: "The model is still warming up. Try again in a few seconds.",
  },
  unreachable: {
    title: "The server cannot be reached",
    words: "It may be down, or the network may be. Try again.",
  },
  token: {
    title: "This server wants a token",
    words: "Open the full address that the server printed when it started: it ends in #token=…",
  },
  rejected: {
    title: "The server did not take the call",
    words: "It could not use what this browser offered.",
  },
  "no-path": {
    title: "No connection came about",
    words: "The server answered, but no media got through. A firewall may block UDP between here and there.",
  },
  lost: {
    title: "The connection was lost",
    words: "The network broke off, or the server went down. Try again.",
  },
  ended: {
    title: "The server ended the call",
    words: "Try again to start another.",
  },
  engine: {
    title: "The avatar has failed",
    words: "Something went wrong in the model. Other calls are not affected; try again to start another.",
  },
  unknown: { title: "Something went wrong", words: "Try again; if it stays, the detail below may help." },
};

export class CallError extends Error {
  /**
   * @param {string} code one of FAILURES
   * @param {string} detail words of the server or the browser
   * @param {number} [retryAfterS]
   */
  constructor(code, detail = "", retryAfterS = 0) {
    super(detail || code);
    this.code = code in FAILURES ? code : "unknown";
    this.detail = detail;
    this.retryAfterS = retryAfterS;
  }

  /** @returns {Failure} */
  get failure() {
    return /** @type {Failure} */ (FAILURES[this.code]);
  }

  /**
   * The error that an HTTP answer means.
   * @param {Response} response
   */
  static async of(response) {
    const words = await response.json().then((body) => describe(body), () => response.statusText);
    const retry = Number(response.headers.get("Retry-After") ?? 0);
    if (response.status === 401) return new CallError("token", words);
    if (response.status === 503) return new CallError(/full/.test(words) ? "full" : "warming", words, retry);
    return new CallError(response.status >= 500 ? "unknown" : "rejected", words);
  }

  /**
   * The error that `getUserMedia` means.
   * @param {unknown} error
   */
  static ofMicrophone(error) {
    const name = error instanceof DOMException ? error.name : "";
    if (name === "NotAllowedError" || name === "SecurityError") return new CallError("denied");
    if (name === "NotFoundError" || name === "OverconstrainedError") return new CallError("no-microphone");
    if (name === "NotReadableError" || name === "AbortError") return new CallError("mic-busy");
    return new CallError("no-microphone", String(error));
  }
}

/** @param {any} body */
function describe(body) {
  if (typeof body?.error === "string") return body.error;
  const first = Array.isArray(body?.detail) ? body.detail[0] : null;
  return first ? `${(first.loc ?? []).join(".")}: ${first.msg}` : "";
}
