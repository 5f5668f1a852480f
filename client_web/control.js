// @ts-check
/**
 * The data channel `control`: JSON objects with `type` and `v`.
 * In: events of the server. Out: orders. Remembers: pings on their way.
 * Events of a type that is not known here are ignored, malformed ones too.
 */

const VERSION = 1;
export const LABEL = "control";

/** @typedef {{type: string, v: number, [key: string]: any}} Event */

export class Control {
  /**
   * @param {RTCDataChannel} channel
   * @param {(event: Event) => void} take
   */
  constructor(channel, take) {
    this.channel = channel;
    /** @type {number | null} round trip in ms */
    this.roundTrip = null;
    channel.addEventListener("message", ({ data }) => {
      const event = parse(data);
      if (!event) return;
      if (event.type === "pong") this.roundTrip = performance.now() - event.t;
      else take(event);
    });
  }

  get open() {
    return this.channel.readyState === "open";
  }

  /**
   * @param {string} type
   * @param {Record<string, unknown>} fields
   */
  send(type, fields = {}) {
    if (this.open) this.channel.send(JSON.stringify({ type, v: VERSION, ...fields }));
  }

  ping() {
    this.send("ping", { t: performance.now() });
  }
}

/**
 * @param {unknown} text
 * @returns {Event | null}
 */
export function parse(text) {
  if (typeof text !== "string") return null;
  try {
    const event = JSON.parse(text);
    return event && typeof event.type === "string" && event.v === VERSION ? event : null;
  } catch {
    return null;
  }
}
