import { assert } from '../base/index.ts'
import type { Write } from './persistence.ts'
import { SealError, type SealedValues } from './sealed-values.ts'

/** In characters of text. */
export interface FramesLimits {
  /** What is no longer valid may take so much, and always as much as what is valid. */
  readonly garbageKept: number
  /** What one frame takes over from old ones at least before it stops, beside as much as it holds itself. */
  readonly takenOver: number
}

const defaultLimits: FramesLimits = { garbageKept: 2_000_000, takenOver: 64_000 }

/** A frame that was made, not yet kept. */
export interface NextFrame {
  readonly number: number
  readonly value: Uint8Array
  /** Frames up to this number hold nothing any more once this one is kept. */
  readonly clearedTo: number
  readonly records: readonly FrameRecord[]
}

/** `text` is empty where the object was deleted. */
interface FrameRecord {
  readonly objectKey: string
  readonly place: number
  readonly line: string
  readonly text: string
}

interface Place {
  readonly place: number
  readonly frame: number
  readonly length: number
}

/**
 * What a store holds as a log of sealed frames: what is written together is one frame, since to seal many values at once
 * costs little more than to seal one. A frame is lines of `place TAB kind TAB id TAB text`; JSON text has neither tabs nor
 * new lines. What it is bound to is its number.
 *
 * Later frames overrule earlier ones. The oldest frame is cleared by writing what is still valid of it into the next one,
 * so everything stays within about twice of what is valid. Knows where each object lies, but holds none.
 */
export class Frames {
  readonly #values: SealedValues
  readonly #limits: FramesLimits
  readonly #placeByKey = new Map<string, Place>()
  /** In order; the live and all characters of each. */
  readonly #frames = new Map<number, { live: number; length: number }>()
  #length = 0
  #live = 0
  #last = 0
  #placeNext = 1

  constructor(values: SealedValues, limits: FramesLimits = defaultLimits) {
    this.#values = values
    this.#limits = limits
  }

  /** Takes in what is kept, in order. Gives the texts of all objects, in order of creation. Throws SealError. */
  load(kept: Iterable<{ readonly number: number; readonly value: Uint8Array }>): readonly string[] {
    this.#forget()
    const textByKey = new Map<string, string>()
    for (const { number, value } of kept) {
      if (this.#last > 0 && number !== this.#last + 1) {
        throw new SealError('damaged', `frame ${this.#last + 1} is missing`)
      }
      const records = this.#open(number, value)
      this.#note(number, records)
      for (const { objectKey, text } of records) {
        if (text === '') textByKey.delete(objectKey)
        else textByKey.set(objectKey, text)
      }
    }
    return [...this.#placeByKey]
      .sort(([, a], [, b]) => a.place - b.place)
      .map(([objectKey]) => textByKey.get(objectKey) ?? '')
  }

  /** Makes the next frame. `read` gives a frame that is kept; without it, none is cleared. */
  next(writes: Iterable<Write>, read?: (number: number) => Uint8Array | undefined): NextFrame {
    const own: FrameRecord[] = []
    const placeByKey = new Map<string, number | undefined>()
    let placeNext = this.#placeNext
    let length = 0
    for (const write of writes) {
      const { kind, id } = write
      assert(!/[\t\n]/.test(id) && kind !== '', 'an id is one word')
      const objectKey = `${kind}\t${id}`
      const known = placeByKey.has(objectKey)
        ? placeByKey.get(objectKey)
        : this.#placeByKey.get(objectKey)?.place
      const isPut = write.type === 'put'
      const place = known ?? (isPut ? placeNext++ : 0)
      placeByKey.set(objectKey, isPut ? place : undefined)
      const text = isPut ? write.text : ''
      own.push({ objectKey, place, text, line: `${place}\t${objectKey}\t${text}` })
      length += text.length
    }
    const { records, clearedTo } = read
      ? this.#takeOver(length, read)
      : { records: [], clearedTo: 0 }
    const all = [...records, ...own]
    const number = this.#last + 1
    const text = all.map(({ line }) => line).join('\n')
    return { number, value: this.#values.seal(text, nameOf(number)), clearedTo, records: all }
  }

  /** The frame is kept from now on. */
  keep({ number, clearedTo, records }: NextFrame): void {
    for (const [old, { length }] of this.#frames) {
      if (old > clearedTo) break
      this.#length -= length
      this.#frames.delete(old)
    }
    this.#note(number, records)
  }

  #forget(): void {
    this.#placeByKey.clear()
    this.#frames.clear()
    this.#length = this.#live = this.#last = 0
    this.#placeNext = 1
  }

  /** What is still valid of the oldest frames, as long as there is too much that is not. */
  #takeOver(
    length: number,
    read: (number: number) => Uint8Array | undefined,
  ): { readonly records: readonly FrameRecord[]; readonly clearedTo: number } {
    const records: FrameRecord[] = []
    let garbage = this.#length - this.#live
    let taken = 0
    let clearedTo = 0
    for (const [number, frame] of this.#frames) {
      if (garbage <= Math.max(this.#limits.garbageKept, this.#live)) break
      if (taken > length + this.#limits.takenOver) break
      if (frame.live > 0) {
        const value = read(number)
        if (value === undefined) break
        for (const record of this.#open(number, value)) {
          if (this.#placeByKey.get(record.objectKey)?.frame !== number || record.text === '') {
            continue
          }
          records.push(record)
        }
      }
      taken += frame.live
      garbage -= frame.length - frame.live
      clearedTo = number
    }
    return { records, clearedTo }
  }

  #open(number: number, value: Uint8Array): readonly FrameRecord[] {
    const text = this.#values.open(value, nameOf(number))
    const recordByKey = new Map<string, FrameRecord>()
    for (const line of text.split('\n')) {
      const [place = '', kind = '', id = '', json = ''] = line.split('\t')
      const objectKey = `${kind}\t${id}`
      recordByKey.set(objectKey, { objectKey, place: Number(place), text: json, line })
    }
    return [...recordByKey.values()]
  }

  #note(number: number, records: readonly FrameRecord[]): void {
    const frame = { live: 0, length: 0 }
    let length = 0
    this.#frames.set(number, frame)
    for (const { objectKey, place, text } of records) {
      const before = this.#placeByKey.get(objectKey)
      if (before) {
        const old = this.#frames.get(before.frame)
        if (old) old.live -= before.length
        this.#live -= before.length
      }
      length += text.length
      if (text === '') {
        this.#placeByKey.delete(objectKey)
        continue
      }
      frame.live += text.length
      this.#live += text.length
      this.#placeByKey.set(objectKey, { place, frame: number, length: text.length })
      this.#placeNext = Math.max(this.#placeNext, place + 1)
    }
    frame.length = length
    this.#length += length
    this.#last = number
  }
}

function nameOf(number: number): string {
  return `frame ${number}`
}
