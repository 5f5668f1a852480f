// @ts-check
/**
 * The controls of what stands behind the person: the engine's own picture, a colour, a picture from this machine.
 * In: clicks and files, the server's acknowledgements. Out: orders; pictures by HTTP.
 * Remembers: what is chosen, also from one call to the next, and the id of the session that pictures go to.
 */

import { CallError } from "./failures.js";
import { element } from "./stage.js";

const PACE_MS = 60;
const MAX_BYTES = 8 * 1024 * 1024;

export class BackdropPad {
  /**
   * @param {string | null} token
   * @param {(color: string | null) => void} order
   * @param {(words: string) => void} notice
   */
  constructor(token, order, notice) {
    this.token = token;
    this.order = order;
    this.notice = notice;
    /** @type {string | null} */
    this.session = null;
    /** @type {string | File | null | undefined} colour, picture, null: as drawn; undefined: the server decides */
    this.wish = undefined;
    this.timer = 0;
    this.none = element("backdrop-none");
    /** @type {HTMLInputElement} */
    this.colour = element("backdrop-colour");
    /** @type {HTMLInputElement} */
    this.picture = element("backdrop-picture");
    this.none.addEventListener("click", () => this.#choose(null));
    this.colour.addEventListener("input", () => this.#choose(this.colour.value));
    this.colour.addEventListener("click", () => this.#choose(this.colour.value));
    this.picture.addEventListener("change", () => {
      const file = this.picture.files?.[0];
      this.picture.value = "";
      if (file) this.#choose(file);
    });
  }

  /**
   * A session has begun: it gets what was chosen before.
   * @param {Record<string, any>} welcome
   */
  begin(welcome) {
    this.session = welcome.session;
    if (this.wish === undefined) this.acknowledge(welcome.background ?? null);
    else void this.#send();
  }

  /**
   * What the server says is in effect.
   * @param {string | null} background
   */
  acknowledge(background) {
    if (this.timer) return;
    if (background?.startsWith("#") && !this.colour.matches(":active")) this.colour.value = background;
    this.#mark(background);
  }

  /** @param {string | File | null} wish */
  #choose(wish) {
    this.wish = wish;
    this.#mark(wish instanceof File ? "picture" : wish);
    if (!this.timer) {
      this.timer = window.setTimeout(() => {
        this.timer = 0;
        void this.#send();
      }, PACE_MS);
    }
  }

  async #send() {
    const { wish } = this;
    if (wish instanceof File) await this.#upload(wish);
    else this.order(wish ?? null);
  }

  /** @param {File} file */
  async #upload(file) {
    if (!this.session) return;
    if (file.size > MAX_BYTES) return this.notice("The picture has more than 8 MiB.");
    const headers = { "Content-Type": file.type, ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}) };
    try {
      const path = `/v1/sessions/${encodeURIComponent(this.session)}/background`;
      const response = await fetch(path, { method: "PUT", headers, body: file });
      if (!response.ok) throw await CallError.of(response);
    } catch (error) {
      this.notice(error instanceof CallError ? error.message : "The picture could not be sent.");
    }
  }

  /** @param {string | null} background */
  #mark(background) {
    this.none.setAttribute("aria-pressed", String(background === null));
    this.colour.classList.toggle("chosen", background?.startsWith("#") ?? false);
    this.picture.classList.toggle("chosen", background === "picture");
  }
}
