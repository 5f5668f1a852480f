// @ts-check
/**
 * What is seen: the picture, the words over it, the speaking mark, the meter.
 * In: tracks, phases, failures. Out: the page. Remembers: the phase.
 */

/** @typedef {"idle" | "asking" | "connecting" | "live" | "failed"} Phase */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (found);
}

/** @type {Record<Phase, string>} */
const STATUS = {
  idle: "Ready when you are",
  asking: "Waiting for the microphone…",
  connecting: "Connecting…",
  live: "Live",
  failed: "Not connected",
};

/** @type {Record<Phase, string>} */
const VEIL = {
  idle: "Speak, and the avatar speaks with you.",
  asking: "Allow the microphone to begin.",
  connecting: "One moment…",
  live: "",
  failed: "",
};

export class Stage {
  constructor() {
    /** @type {HTMLVideoElement} */
    this.video = element("video");
    /** @type {HTMLAudioElement} */
    this.voice = element("voice");
    /** @type {Phase} */
    this.phase = "idle";
    this.video.addEventListener("loadeddata", () => document.body.classList.add("has-picture"));
  }

  /** @param {Phase} phase */
  enter(phase) {
    this.phase = phase;
    document.body.dataset.phase = phase;
    element("status-words").textContent = STATUS[phase];
    element("veil-words").textContent = VEIL[phase];
    const busy = phase === "asking" || phase === "connecting";
    element("start-words").textContent = phase === "live" ? "Hang up" : busy ? "Cancel" : "Start the call";
    if (phase !== "live") {
      this.speak(false);
      this.meter(0);
    }
    if (phase === "idle" || phase === "failed") {
      document.body.classList.remove("has-picture");
      this.video.srcObject = null;
      this.voice.srcObject = null;
    }
  }

  /** @param {MediaStreamTrack} track */
  show(track) {
    const media = track.kind === "video" ? this.video : this.voice;
    media.srcObject = new MediaStream([track]);
    media.play().catch(() => {}); // the next click plays it: browsers want a gesture for sound
  }

  /** @param {import("./failures.js").CallError | null} error */
  tell(error) {
    element("failure").hidden = error === null;
    if (!error) return;
    element("failure-title").textContent = error.failure.title;
    element("failure-words").textContent = error.failure.words;
    element("failure-detail").textContent = error.detail;
    element("listen-only").hidden = !error.failure.watch;
    element("retry").focus({ preventScroll: true });
  }

  /** @param {boolean} on */
  speak(on) {
    document.body.classList.toggle("is-speaking", on);
  }

  /** @param {number} level 0 to 1 */
  meter(level) {
    element("meter").style.setProperty("--level", level.toFixed(3));
  }

  /** @param {string} words */
  notice(words) {
    element("notice").textContent = words;
  }
}
