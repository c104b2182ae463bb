/**
 * The search of the site, opened from files: browsers start no Worker from a file, so this one runs
 * its script in a hidden frame. On a server the browser's own Worker stays.
 */
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    #scope;
    #loaded;

    constructor(url) {
      super();
      const frame = document.createElement('iframe');
      frame.hidden = true;
      document.documentElement.append(frame);
      // Without these two, Firefox replaces the empty document later, and with it the script.
      frame.contentDocument.open();
      frame.contentDocument.close();
      this.#scope = frame.contentWindow;
      this.#scope.postMessage = (data) => {
        this.dispatchEvent(new MessageEvent('message', {data}));
      };
      this.#scope.importScripts = (...urls) => Promise.all(urls.map((each) => this.#load(each)));
      this.#loaded = this.#load(url);
    }

    postMessage(data) {
      this.#loaded.then(() => this.#scope.dispatchEvent(new MessageEvent('message', {data})));
    }

    #load(url) {
      return new Promise((done, failed) => {
        const {document} = this.#scope;
        const script = document.createElement('script');
        script.onload = done;
        script.onerror = () => failed(new Error(`${url} could not be loaded.`));
        script.src = url;
        document.head.append(script);
      });
    }
  };
}
