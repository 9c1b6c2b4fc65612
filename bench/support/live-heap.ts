/**
 * Prints what lives in the heap of a Node.js process, in bytes, once its garbage has been collected: `node live-heap.ts <pid>`. Memory that
 * the process holds besides is room that Node has not given back. Asks by the inspector, which it opens and closes again.
 */
import { listAt, numberAt, textAt } from '../../test/support/look.ts'

const pid = Number(process.argv[2])

process.kill(pid, 'SIGUSR1')
const socket = new WebSocket(await debuggerUrl())
await new Promise((resolve, reject) => {
  socket.onopen = resolve
  socket.onerror = reject
})
let lastId = 0
const answers = new Map<number, (answer: unknown) => void>()
socket.onmessage = ({ data }) => {
  const answer: unknown = JSON.parse(String(data))
  answers.get(numberAt(answer, 'id'))?.(answer)
}
// What the first round ends may be what kept something else.
for (let round = 0; round < 2; round++) await call('HeapProfiler.collectGarbage')
console.log(numberAt(await call('Runtime.getHeapUsage'), 'result', 'usedSize'))
const close = 'setTimeout(() => process.getBuiltinModule("inspector").close(), 50), undefined'
await call('Runtime.evaluate', { expression: close })
socket.close()

async function debuggerUrl(): Promise<string> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const answer = await fetch('http://127.0.0.1:9229/json/list').catch(() => undefined)
    const targets: unknown = await answer?.json()
    const [url] = listAt(targets).map((target) => textAt(target, 'webSocketDebuggerUrl'))
    if (url) return url
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error(`process ${pid} opens no inspector`)
}

function call(method: string, params: object = {}): Promise<unknown> {
  lastId += 1
  const id = lastId
  const answer = new Promise((resolve) => answers.set(id, resolve))
  socket.send(JSON.stringify({ id, method, params }))
  return answer
}
