import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { type TurnBudget, UserError } from '../base/index.ts'
import { factCountOf } from '../dispatcher/index.ts'
import type { AssignmentChange, FeedPart } from '../wire/index.ts'
import { Fields } from './read.ts'

/** Texts that are longer are sent compressed, in bytes: ids and addresses say much the same again and again. */
const plainBytesMax = 1_024
/** Of a part as it is read, in bytes: the manager makes parts far smaller. */
const textBytesMax = 256 * 2 ** 20
const marks = { plain: 0, deflated: 1 } as const

/** Bytes of parts that many nodes are told alike, for as long as somebody may be told of them. */
const bytesOfPart = new WeakMap<FeedPart, Uint8Array>()

/** Parts whose bytes somebody waits to make. */
const beingEncoded = new WeakMap<FeedPart, Promise<void>>()

/** Facts put into bytes, compressed, in one unit of a turn. */
const factsPerUnit = 3
/** Of a turn: to put a message to a node into bytes, and each task in it. */
const unitsPerMessage = 3
const unitsPerTask = 2

/**
 * Makes the bytes of parts that nobody was told of yet, each in its share of a turn and once, whoever waits for it. What `next` of a
 * session was given a share for ends with its turn: a message that had to wait here takes another one for the rest of its bytes, so
 * that thousands of sessions that waited for the same part do not all go on in one turn.
 */
export async function encodeParts(
  { feeds, tasks }: AssignmentChange,
  turns: TurnBudget,
): Promise<void> {
  let hasWaited = false
  for (const { parts } of feeds.put) {
    for (const part of parts) {
      const made = bytesOfPart.has(part) ? undefined : encodeInShare(part, turns)
      if (!made) continue
      hasWaited = true
      await made
    }
  }
  if (!hasWaited) return
  const share = turns.take(unitsPerMessage + unitsPerTask * tasks.put.length)
  if (share) await share
}

/** Undefined: it is made. */
function encodeInShare(part: FeedPart, turns: TurnBudget): Promise<void> | undefined {
  const known = beingEncoded.get(part)
  if (known) return known
  const share = turns.take(factCountOf(part) / factsPerUnit)
  if (!share) {
    encodePart(part)
    return undefined
  }
  const made = share.then(() => {
    encodePart(part)
    beingEncoded.delete(part)
  })
  beingEncoded.set(part, made)
  return made
}

/** A part of a feed as it is sent: one byte that says how, and JSON. Made once, whoever it is sent to. */
export function encodePart(part: FeedPart): Uint8Array {
  const known = bytesOfPart.get(part)
  if (known) return known
  const text = Buffer.from(JSON.stringify(part))
  const isLong = text.length > plainBytesMax
  const bytes = Buffer.concat([
    Buffer.of(isLong ? marks.deflated : marks.plain),
    isLong ? deflateRawSync(text, { level: 1 }) : text,
  ])
  bytesOfPart.set(part, bytes)
  return bytes
}

/** The managers are trusted with what they say: its shape is the model's own. */
export function decodePart(bytes: Uint8Array): FeedPart {
  const mark = bytes[0]
  try {
    if (mark !== marks.plain && mark !== marks.deflated) throw new Error(`mark ${mark}`)
    const rest = bytes.subarray(1)
    const text =
      mark === marks.plain ? rest : inflateRawSync(rest, { maxOutputLength: textBytesMax })
    const fields = new Fields('part', JSON.parse(Buffer.from(text).toString()))
    for (const name of ['endpoints', 'neighbours']) checkDelta(fields.inside(name))
    fields.list('backends', (value) => checkDelta(new Fields('backends', value)))
    return fields.all() as unknown as FeedPart
  } catch (cause) {
    throw new UserError('invalidInput', 'the manager sent what is no part of a feed', { cause })
  }
}

function checkDelta(delta: Fields): void {
  delta.list('put', (value) => value)
  delta.texts('remove')
}
