import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { decode, encode } from 'dns-packet'
import { parseResolvConf } from '../../src/network/resolver/forwarder.ts'

/** When a question is asked, and at last given up, in ms from the first time. */
const askedAtMs = [0, 1000, 2000]
const answerMsMax = 3000

export class NameError extends Error {
  override readonly name = 'NameError'
}

/**
 * Asks the first nameserver of resolv.conf for a name's address, from a socket of its own as libc does. Node's own resolver gives up
 * after a quarter and half a second under steady use, whatever its timeout is said to be (c-ares 1.34: it goes by the answers before),
 * where other clients wait for 5 s. `onAskedAgain` is told of each question that got no answer in time.
 */
export function askName(name: string, onAskedAgain: () => void): Promise<string> {
  const id = Math.floor(Math.random() * 65_536)
  const question = encode({
    type: 'query',
    id,
    flags: 0x100, // Recursion is wanted. Source: RFC 1035, 4.1.1.
    questions: [{ type: 'A', name }],
  })
  const [server = '127.0.0.1'] = parseResolvConf(readFileSync('/etc/resolv.conf', 'utf8'))
  const socket = createSocket('udp4')
  const timers: NodeJS.Timeout[] = []
  return new Promise<string>((resolve, reject) => {
    socket.on('error', () => {}) // A nameserver that is away for a moment.
    socket.on('message', (bytes) => {
      const { id: answered, answers = [] } = decode(bytes)
      if (answered !== id) return
      const record = answers.find(({ type }) => type === 'A')
      if (record?.type === 'A') resolve(record.data)
      else reject(new NameError('no address'))
    })
    socket.connect(53, server, (error?: Error) => {
      if (error) return reject(error)
      for (const [again, atMs] of askedAtMs.entries()) {
        const ask = () => {
          if (again > 0) onAskedAgain()
          socket.send(question)
        }
        if (again === 0) ask()
        else timers.push(setTimeout(ask, atMs))
      }
      timers.push(setTimeout(() => reject(new NameError('no answer')), answerMsMax))
    })
  }).finally(() => {
    for (const timer of timers) clearTimeout(timer)
    socket.close()
  })
}
