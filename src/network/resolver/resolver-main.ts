/**
 * The node's resolver: a small process of its own, so that names are answered while the daemon restarts.
 * `node resolver-main.ts <state directory> [<file descriptor>]`: a line is written to the descriptor, if given, once it
 * serves.
 */
import { closeSync, existsSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { getPriority, setPriority } from 'node:os'
import { controlVersion, parseRequest, type ResolverStatus, resolverFiles } from './control.ts'
import { Forwarder } from './forwarder.ts'
import { ResolverServer } from './server.ts'
import { StateReader } from './state-file.ts'

/** Longest line a daemon may send, in characters. */
const requestCharsMax = 1024
/** How much nicer everything else is than the resolver: it does little, and all that asks for a name waits for it. */
const nicerBy = 10

const [, , directory, readyDescriptor] = process.argv
if (directory === undefined) {
  process.stderr.write('usage: resolver-main.ts <state directory>\n')
  process.exit(2)
}
// A path to a socket has at most 107 bytes; from within its directory it is short.
process.chdir(directory)
process.title = 'skep-resolver'
process.umask(0o077)
goFirst()

const forwarder = new Forwarder({
  resolvConf: '/etc/resolv.conf',
  nowMs: () => performance.now(),
})
const server = new ResolverServer({
  forwarder,
  below: (limit) => Math.floor(Math.random() * limit),
  port: 53,
})
const reader = new StateReader(resolverFiles.state)
let failures: Readonly<Record<string, string>> = {}
let error: string | undefined
/** One load at a time: each listens on what is missing. */
let loading: Promise<void> = Promise.resolve()

function load(): Promise<void> {
  loading = loading.then(async () => {
    try {
      failures = await server.serve(reader.read())
      error = undefined
    } catch (reason) {
      // The state before goes on being answered.
      error = reason instanceof Error ? reason.message : String(reason)
      process.stderr.write(`resolver: ${error}\n`)
    }
  })
  return loading
}

function status(): ResolverStatus {
  return {
    version: controlVersion,
    pid: process.pid,
    listening: server.listening,
    failures,
    ...(error === undefined ? {} : { error }),
  }
}

function stop(): void {
  rmSync(resolverFiles.socket, { force: true })
  rmSync(resolverFiles.pid, { force: true })
  process.exit(0)
}

const control = createServer((socket) => {
  let received = ''
  socket.setEncoding('utf8')
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: string) => {
    const lines = (received + chunk).split('\n')
    received = lines.pop() ?? ''
    if (received.length > requestCharsMax) socket.destroy()
    for (const line of lines) {
      const request = parseRequest(line)
      if (request?.command === 'stop') {
        socket.end(`${JSON.stringify(status())}\n`, stop)
        return
      }
      const done = request?.command === 'load' ? load() : loading
      void done.then(() => {
        if (socket.writable) socket.write(`${JSON.stringify(status())}\n`)
      })
    }
  })
})

function goFirst(): void {
  try {
    setPriority(Math.max(-20, getPriority() - nicerBy))
  } catch {
    // Without the right to: it takes its turn with all others.
  }
}

process.on('SIGTERM', stop)
process.on('SIGINT', stop)
// The daemon that started it may end; the resolver stays.
process.on('SIGHUP', () => {})

if (existsSync(resolverFiles.state)) await load()
rmSync(resolverFiles.socket, { force: true })
control.listen(resolverFiles.socket, () => {
  writeFileSync(resolverFiles.pid, `${process.pid}\n`, { mode: 0o600 })
  if (readyDescriptor === undefined) return
  try {
    writeSync(Number(readyDescriptor), 'ready\n')
    closeSync(Number(readyDescriptor))
  } catch {
    // Whoever started it is gone. The next daemon will find it.
  }
})
