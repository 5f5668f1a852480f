// Runs in the page before its own scripts: writes down what the page hears, receives and is told, and touches nothing.
// All times are performance.now() in ms. `recorder.start()` when the call is on, `recorder.take(from, count)` after it.
window.recorder = (() => {
  const sound = [];
  const events = [];
  const pictures = [];
  let open = false;

  const devices = navigator.mediaDevices;
  const ask = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (wish) => {
    const stream = await ask(wish);
    listen(stream.getAudioTracks()[0].clone());
    return stream;
  };
  async function listen(track) {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const samples = new Float32Array(value.numberOfFrames);
      value.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
      sound.push([performance.now(), value.timestamp / 1000, Math.sqrt(power)]);
      value.close();
    }
  }

  const channelOf = RTCPeerConnection.prototype.createDataChannel;
  RTCPeerConnection.prototype.createDataChannel = function (...given) {
    const channel = channelOf.apply(this, given);
    channel.addEventListener("message", ({ data }) => events.push([performance.now(), data]));
    return channel;
  };

  function start(side) {
    const video = document.getElementById("video");
    open = true;
    const look = (now, about) => {
      const canvas = new OffscreenCanvas(side, side);
      canvas.getContext("2d").drawImage(video, 0, 0, side, side);
      const blob = canvas.convertToBlob({ type: "image/jpeg", quality: 0.93 });
      pictures.push({ now: about.receiveTime ?? now, rtp: about.rtpTimestamp, blob });
      if (open) video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }

  async function take(from, count) {
    open = false;
    return Promise.all(pictures.slice(from, from + count).map(async ({ now, rtp, blob }) => {
      const bytes = new Uint8Array(await (await blob).arrayBuffer());
      let text = "";
      for (const byte of bytes) text += String.fromCharCode(byte);
      return [now, rtp, btoa(text)];
    }));
  }

  return { start, take, sound: () => sound, events: () => events };
})();
