/**
 * Test support: a process inside some network namespace that connects, asks and listens as it is told, one JSON line a
 * command. `nsenter -t <pid> -n node probe-main.ts`
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { decode, encode } from 'dns-packet'

export type ProbeCommand =
  | { op: 'http'; host: string; port: number; localPort?: number }
  | { op: 'hold'; key: string; host: string; port: number }
  | { op: 'ask'; key: string }
  | { op: 'end'; key: string }
  | { op: 'udp'; key: string; host: string; port: number }
  | { op: 'serveUdp'; port: number; tag: string }
  | { op: 'dns'; server: string; name: string; type: string; transport: 'udp' | 'tcp' }

/** Ends what hangs, in ms; no machine that works needs as long. */
const answerMsMax = 30_000
const held = new Map<string, Socket>()
const senders = new Map<string, UdpSocket>()
const request = 'GET / HTTP/1.1\r\nHost: probe\r\n\r\n'

async function perform(command: ProbeCommand): Promise<string> {
  switch (command.op) {
    case 'http': {
      const socket = await open(command.host, command.port, command.localPort)
      try {
        return await exchange(socket)
      } finally {
        socket.destroy()
      }
    }
    case 'hold': {
      const socket = await open(command.host, command.port)
      held.set(command.key, socket)
      return String(socket.localPort)
    }
    case 'end':
      held.get(command.key)?.end()
      held.delete(command.key)
      return 'ended'
    case 'ask': {
      const socket = held.get(command.key)
      if (!socket) throw new Error(`nothing is held as ${command.key}`)
      return await exchange(socket)
    }
    case 'udp': {
      const socket = senders.get(command.key) ?? createSocket('udp4')
      senders.set(command.key, socket)
      return await new Promise<string>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('ETIMEDOUT')), answerMsMax)
        socket.removeAllListeners()
        socket.once('error', reject)
        socket.once('message', (bytes) => {
          clearTimeout(timer)
          resolve(bytes.toString())
        })
        socket.send('hello', command.port, command.host, (error) => error && reject(error))
      })
    }
    case 'serveUdp': {
      const socket = createSocket('udp4')
      socket.on('message', (_, { address, port }) => {
        socket.send(`${command.tag} ${address}`, port, address)
      })
      await new Promise<void>((resolve) => socket.bind(command.port, resolve))
      return 'serving'
    }
    case 'dns': {
      const query = encode({
        type: 'query',
        id: 7,
        flags: 256,
        questions: [{ name: command.name, type: command.type as 'A' }],
      })
      const bytes = await (command.transport === 'udp'
        ? askUdp(query, command.server)
        : askTcp(query, command.server))
      const { answers = [], flags = 0 } = decode(bytes)
      return JSON.stringify({
        code: flags & 15,
        data: answers.map((answer) =>
          answer.type === 'A' || answer.type === 'AAAA' || answer.type === 'PTR'
            ? answer.data
            : answer.type,
        ),
      })
    }
  }
}

function open(host: string, port: number, localPort?: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, ...(localPort === undefined ? {} : { localPort }) })
    socket.setTimeout(answerMsMax, () => socket.destroy(new Error('ETIMEDOUT')))
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.setTimeout(0)
      resolve(socket)
    })
  })
}

function exchange(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const timer = setTimeout(() => reject(new Error('no answer')), answerMsMax)
    const end = () => {
      clearTimeout(timer)
      socket.removeAllListeners('data')
      resolve(text)
    }
    socket.once('error', reject)
    socket.on('data', (chunk) => {
      text += chunk.toString()
      const [head = '', body] = text.split('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? Number.NaN)
      if (body !== undefined && body.length >= length) end()
    })
    socket.once('end', end)
    socket.write(request)
  })
}

function askUdp(query: Buffer, server: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4')
    const timer = setTimeout(() => reject(new Error('ETIMEDOUT')), 10_000)
    socket.once('error', reject)
    socket.once('message', (bytes) => {
      clearTimeout(timer)
      socket.close()
      resolve(bytes)
    })
    socket.send(query, 53, server)
  })
}

async function askTcp(query: Buffer, server: string): Promise<Buffer> {
  const socket = await open(server, 53)
  const length = Buffer.alloc(2)
  length.writeUInt16BE(query.length)
  socket.write(Buffer.concat([length, query]))
  let received = Buffer.alloc(0)
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk])
    if (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) break
  }
  socket.destroy()
  return received.subarray(2)
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as ProbeCommand
  const answer = await perform(command).then(
    (value) => ({ value }),
    (error: unknown) => ({
      error: error instanceof Error ? ('code' in error ? String(error.code) : error.message) : '',
    }),
  )
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
process.exit(0)
