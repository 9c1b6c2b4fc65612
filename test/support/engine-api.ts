import { Agent, request } from 'node:http'

export interface Answer {
  readonly status: number
  readonly body: unknown
}

/** Calls of an Engine API on a unix socket, by connections that are kept. */
export class EngineApi {
  readonly #socketPath: string
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 32 })

  /** `address` is `unix://…`. */
  constructor(address: string) {
    this.#socketPath = address.replace(/^unix:\/\//, '')
  }

  call(method: string, path: string, body?: unknown): Promise<Answer> {
    return new Promise((done, fail) => {
      const call = request(
        {
          socketPath: this.#socketPath,
          agent: this.#agent,
          method,
          path,
          headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
        },
        (answer) => {
          let text = ''
          answer.setEncoding('utf8').on('data', (part: string) => {
            text += part
          })
          answer.on('error', fail)
          answer.on('end', () => {
            let parsed: unknown
            try {
              parsed = JSON.parse(text)
            } catch {
              parsed = text
            }
            done({ status: answer.statusCode ?? 0, body: parsed })
          })
        },
      )
      call.on('error', fail)
      call.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  /** As `call`, and throws what the engine says when it refuses. */
  async ok(method: string, path: string, body?: unknown): Promise<unknown> {
    const answer = await this.call(method, path, body)
    if (answer.status >= 400) {
      throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    }
    return answer.body
  }

  close(): void {
    this.#agent.destroy()
  }
}
