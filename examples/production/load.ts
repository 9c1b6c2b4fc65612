/**
 * A steady load: `load.ts URL [CONNECTIONS]` asks for URL, each time on a new connection, until SIGINT or SIGTERM. Then
 * it prints how many requests there were, how many failed (no answer, or a status other than 2xx) and why.
 */
import { Agent, get } from 'node:http'

const [url, connections = '4'] = process.argv.slice(2)
if (url === undefined) {
  console.error('usage: load.ts URL [CONNECTIONS]')
  process.exit(2)
}

const requestTimeoutMs = 10_000
const agent = new Agent({ keepAlive: false })
const timesMs: number[] = []
const countByFailure = new Map<string, number>()
let over = false

/** Resolves with the reason of the failure, or with undefined after a good answer. */
function ask(target: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const request = get(target, { agent, timeout: requestTimeoutMs }, (response) => {
      const status = response.statusCode ?? 0
      response.on('error', (error) => resolve(error.message))
      response.on('end', () => resolve(status >= 200 && status < 300 ? undefined : `${status}`))
      response.resume()
    })
    request.on('timeout', () =>
      request.destroy(new Error(`no answer in ${requestTimeoutMs / 1000} s`)),
    )
    request.on('error', (error) => resolve(error.message))
  })
}

async function work(target: string): Promise<void> {
  while (!over) {
    const startedMs = performance.now()
    const failure = await ask(target)
    timesMs.push(performance.now() - startedMs)
    if (failure !== undefined) countByFailure.set(failure, (countByFailure.get(failure) ?? 0) + 1)
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    over = true
  })
}

await Promise.all(Array.from({ length: Number(connections) }, () => work(url)))
timesMs.sort((a, b) => a - b)
const timeAt = (share: number) =>
  `${(timesMs[Math.floor(timesMs.length * share)] ?? 0).toFixed(1)} ms`
const failed = [...countByFailure.values()].reduce((sum, count) => sum + count, 0)
console.log(
  `${timesMs.length} requests, ${failed} failed, half within ${timeAt(0.5)}, 99 % within ${timeAt(0.99)}`,
)
for (const [reason, count] of countByFailure) console.log(`  ${count} times: ${reason}`)
process.exitCode = failed > 0 ? 1 : 0
