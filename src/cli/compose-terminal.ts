import type { Duplex } from 'node:stream'
import { FrameReader } from '../engine/index.ts'
import type { Io } from './io.ts'

/** Joins this process's terminal or pipes with a container's. Resolves when the container's side has ended. */
export async function joinStreams(
  io: Io,
  stream: Duplex,
  options: {
    readonly tty: boolean
    readonly stdin: boolean
    /** Tells the container's terminal its size. */
    readonly resize?: (size: { h: number; w: number }) => Promise<void>
  },
): Promise<void> {
  const { stdin, stdout, stderr } = io
  const isRaw = options.tty && options.stdin && stdin.isTTY === true
  const onSize = (): void => {
    const size = { h: Number(Reflect.get(stdout, 'rows')), w: Number(stdout.columns) }
    // A size that could not be told is no reason to end: the program draws for the one before.
    if (size.h > 0 && size.w > 0) options.resize?.(size).catch(() => {})
  }
  if (options.tty && stdout.isTTY) {
    onSize()
    stdout.on('resize', onSize)
  }
  setRaw(io, isRaw)
  const onInput = (data: Buffer): void => {
    if (!stream.write(data)) {
      stdin.pause()
      stream.once('drain', () => stdin.resume())
    }
  }
  const onEnd = (): void => {
    stream.end()
  }
  if (options.stdin) {
    stdin.on('data', onInput)
    stdin.once('end', onEnd)
    stdin.resume()
  } else if (!options.tty) stream.end()
  // The other side may close while input still comes.
  stream.on('error', () => {})
  try {
    const frames = new FrameReader()
    for await (const chunk of stream) {
      if (options.tty) await write(stdout, chunk)
      else {
        for (const { stream: name, data } of frames.push(chunk)) {
          await write(name === 'stdout' ? stdout : stderr, data)
        }
      }
    }
  } finally {
    stdin.off('data', onInput)
    stdin.off('end', onEnd)
    stdout.off('resize', onSize)
    setRaw(io, false)
    if (options.stdin) {
      stdin.pause()
      if ('unref' in stdin && typeof stdin.unref === 'function') stdin.unref()
    }
  }
}

function setRaw({ stdin }: Io, raw: boolean): void {
  if (!stdin.isTTY || !('setRawMode' in stdin)) return
  if (typeof stdin.setRawMode === 'function') stdin.setRawMode(raw)
}

async function write(out: Io['stdout'] | Io['stderr'], data: Buffer): Promise<void> {
  if (!out.write(data)) await new Promise<void>((resolve) => out.once('drain', resolve))
}
