// @ts-check
/**
 * The call page put together: buttons, one call at a time, a tick a second.
 * In: clicks and keys. Out: a call. Remembers: the call in progress.
 */

import { BackdropPad } from "./backdrop.js";
import { CallError } from "./failures.js";
import { Mic } from "./mic.js";
import { Peer } from "./peer.js";
import { Stage, element } from "./stage.js";
import { Stats } from "./stats.js";
import { StylePad } from "./style_pad.js";

const token = new URLSearchParams(location.hash.slice(1)).get("token");
const stage = new Stage();
const stats = new Stats(stage.video);
const pad = new StylePad((order) => peer?.control.send(order.type, order));

const backdrop = new BackdropPad(token, (color) => peer?.control.send("background", { color }), (words) => stage.notice(words));

/** @type {Peer | null} */
let peer = null;
/** @type {Mic | null} */
let mic = null;
/** Counts calls, so that what an abandoned one still brings is not mixed up with the next. */
let turn = 0;
let muted = false;
let echo = false;
let ticks = 0;

/** @param {boolean} withMicrophone */
async function start(withMicrophone) {
  const mine = ++turn;
  stage.tell(null);
  stage.notice("");
  stats.reset();
  try {
    if (withMicrophone) {
      stage.enter("asking");
      const opened = await Mic.open();
      if (mine !== turn) return opened.close();
      mic = opened;
      mic.mute(muted);
      mic.track.addEventListener("ended", () => fail(mine, new CallError("no-microphone", "It was unplugged.")));
    }
    stage.enter("connecting");
    peer = new Peer(token, {
      track: (track) => stage.show(track),
      event: (event) => hear(event),
      connected: () => stage.enter("live"),
      failed: (error) => fail(mine, error),
    });
    await peer.call(mic?.track ?? null, { ...pad.wish, echo: echo || undefined });
    buttons();
  } catch (error) {
    fail(mine, error instanceof CallError ? error : new CallError("unknown", String(error)));
  }
}

/**
 * @param {number} mine
 * @param {CallError} error
 */
function fail(mine, error) {
  if (mine !== turn) return;
  clear();
  stage.enter("failed");
  stage.tell(error);
}

function hangUp() {
  clear();
  stage.enter("idle");
}

function clear() {
  turn += 1;
  peer?.hangUp();
  mic?.close();
  peer = mic = null;
  buttons();
}

/** @param {import("./control.js").Event} event */
function hear(event) {
  if (event.type === "stats") stats.take(event);
  else if (event.type === "state") stage.speak(event.state === "speaking");
  else if (event.type === "welcome" || event.type === "style" || event.type === "avatar") {
    pad.acknowledge(event);
    if (event.type === "welcome") backdrop.begin(event);
    stage.notice("");
  } else if (event.type === "background") {
    backdrop.acknowledge(event.background);
    stage.notice("");
  } else if (event.type === "draining") {
    stage.notice(`The server is going down: the call ends within ${Math.ceil(event.seconds)} s.`);
  } else if (event.type === "error") stage.notice(event.message);
}

function buttons() {
  /** @type {HTMLButtonElement} */
  const mute = element("mute");
  mute.disabled = mic === null;
  mute.setAttribute("aria-pressed", String(muted));
  element("echo").setAttribute("aria-pressed", String(echo));
}

function toggleMute() {
  muted = !muted;
  mic?.mute(muted);
  peer?.control.send("mute", { on: muted });
  buttons();
}

function toggleEcho() {
  echo = !echo;
  peer?.control.send("echo", { on: echo });
  buttons();
}

function toggleFigures() {
  const overlay = element("overlay");
  overlay.hidden = !overlay.hidden;
  element("figures").setAttribute("aria-pressed", String(!overlay.hidden));
}

function meter() {
  if (mic) stage.meter(mic.level);
}

function tick() {
  if (peer && stage.phase === "live") {
    void stats.draw(peer.connection, peer.control.roundTrip);
    if (ticks++ % 2 === 0) peer.control.ping();
  }
}

async function fill() {
  const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
  try {
    const [styles, avatars] = await Promise.all(
      ["/v1/styles", "/v1/avatars"].map(async (path) => {
        const response = await fetch(path, { headers });
        if (!response.ok) throw await CallError.of(response);
        return response.json();
      }),
    );
    pad.fill(styles, avatars);
    return true;
  } catch (error) {
    stage.enter("failed");
    stage.tell(error instanceof CallError ? error : new CallError("unreachable", String(error)));
    return false;
  }
}

/** @param {boolean} withMicrophone */
async function again(withMicrophone) {
  if (!pad.styles.length && !(await fill())) return;
  void start(withMicrophone);
}

element("start").addEventListener("click", () => (peer || stage.phase === "asking" ? hangUp() : void again(true)));
element("retry").addEventListener("click", () => void again(true));
element("listen-only").addEventListener("click", () => void again(false));
element("mute").addEventListener("click", toggleMute);
element("echo").addEventListener("click", toggleEcho);
element("figures").addEventListener("click", toggleFigures);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLSelectElement) return;
  if (event.key === "m" && mic) toggleMute();
  if (event.key === "f") toggleFigures();
  if (event.key === "Escape" && (peer || stage.phase === "asking")) hangUp();
});
window.addEventListener("pagehide", () => peer?.hangUp());
window.setInterval(tick, 1000);
window.setInterval(meter, 80);
if (!window.isSecureContext) {
  stage.enter("failed");
  stage.tell(new CallError("insecure"));
}
void fill();
