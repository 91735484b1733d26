// A browser starts no worker for a page that is opened from the disk: there, the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = (...urls) =>
        urls.reduce((before, one) => before.then(() => loaded(inner.document, one)), Promise.resolve());
      this.ready = loaded(inner.document, url);
      this.postMessage = (data) => this.ready.then(() => inner.dispatchEvent(new MessageEvent("message", { data })));
      this.terminate = () => frame.remove();
    }
  };

  const loaded = (page, url) =>
    new Promise((done, failed) => {
      const script = page.createElement("script");
      script.src = new URL(url, location);
      script.onload = done;
      script.onerror = failed;
      page.head.append(script);
    });
}
