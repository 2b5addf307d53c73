// A Worker for pages that are opened as files, where browsers refuse the built-in one. The script of the search runs in a
// hidden frame instead. The plugin `offline` would fetch such a replacement from elsewhere.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.window = this.frame.contentWindow;
      this.window.document.open(); // at once: some browsers exchange an empty document later
      this.window.document.write("<body></body>");
      this.window.document.close();
      this.window.postMessage = (data) => this.receive(data);
      this.window.importScripts = (...urls) => urls.reduce((done, next) => done.then(() => this.load(next)), Promise.resolve());
      this.ready = this.load(url);
    }

    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.window.document.createElement("script");
        Object.assign(script, { src: new URL(url, location), onload: resolve, onerror: reject });
        this.window.document.body.append(script);
      });
    }

    receive(data) {
      const message = new MessageEvent("message", { data });
      this.dispatchEvent(message);
      this.onmessage?.(message);
    }

    postMessage(data) {
      this.ready.then(() => this.window.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
