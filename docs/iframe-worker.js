// Search in pages that are opened as files: there browsers start no workers, so the script of the search runs in a frame.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(script) {
      super()
      const frame = Object.assign(document.createElement("iframe"), { hidden: true, title: "search" })
      document.body.append(frame)
      const inside = frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.loaded = new Promise(done => {
        const element = inside.document.createElement("script")
        inside.document.body.append(Object.assign(element, { src: script, onload: () => done(inside) }))
      })
    }
    postMessage(data) {
      this.loaded.then(inside => inside.dispatchEvent(new inside.MessageEvent("message", { data })))
    }
  }
