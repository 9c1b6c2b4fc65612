import type { Chance } from './chance.ts'
import type { SimulatedProcess } from './process.ts'
import type { SimulatedTime, Timer } from './time.ts'

/** What a network does to messages, as one in so many, and how long one takes. */
export interface NetworkWeather {
  readonly delayMsMin: number
  readonly delayMsMax: number
  /** 0: never. */
  readonly lostOneIn: number
  readonly doubledOneIn: number
  /** A message that overtakes or is overtaken: it takes up to this much longer. */
  readonly lateOneIn: number
  readonly lateMsMax: number
}

export const fairWeather: NetworkWeather = {
  delayMsMin: 0,
  delayMsMax: 2,
  lostOneIn: 0,
  doubledOneIn: 0,
  lateOneIn: 0,
  lateMsMax: 0,
}

/** A message that was not acknowledged is sent again after this, doubled each time up to the second, in ms. */
const resendMs = 200
const resendMsMax = 3_000

/** Counts of what the network did to messages. */
export interface NetworkCounts {
  sent: number
  lost: number
  doubled: number
  late: number
}

/**
 * Messages between machines. Each is delayed, and may be lost, doubled or late; a cut direction loses all of them.
 * `openLine` makes of that what TCP does: an ordered line on which each message arrives once, or later, or never.
 */
export class SimulatedNetwork {
  readonly counts: NetworkCounts = { sent: 0, lost: 0, doubled: 0, late: 0 }
  weather: NetworkWeather = fairWeather
  /** Called when machines can reach others than before. */
  onCutsChanged: () => void = () => {}
  readonly #time: SimulatedTime
  readonly #chance: Chance
  readonly #cuts = new Set<string>()

  constructor(time: SimulatedTime, chance: Chance) {
    this.#time = time
    this.#chance = chance
  }

  /** Nothing sent from one machine reaches the other until `mend`. */
  cut(from: string, to: string): void {
    this.#cuts.add(`${from}>${to}`)
    this.onCutsChanged()
  }

  mend(from: string, to: string): void {
    this.#cuts.delete(`${from}>${to}`)
    this.onCutsChanged()
  }

  mendAll(): void {
    this.#cuts.clear()
    this.onCutsChanged()
  }

  isCut(from: string, to: string): boolean {
    return this.#cuts.size > 0 && this.#cuts.has(`${from}>${to}`)
  }

  /** Whether both can talk to each other. */
  areJoined(a: string, b: string): boolean {
    return !this.isCut(a, b) && !this.isCut(b, a)
  }

  /** Sends one datagram: `arrive` is called later, or never, or twice. `isQuiet`: see `quietlyAfter` of the time. */
  send(from: string, to: string, arrive: () => void, isQuiet = false): void {
    if (from === to) {
      this.#time.after(0, arrive)
      return
    }
    this.counts.sent += 1
    const { weather } = this
    const chance = this.#chance
    const isLost = weather.lostOneIn > 0 && chance.oneIn(weather.lostOneIn)
    if (isLost) this.counts.lost += 1
    const copies = weather.doubledOneIn > 0 && chance.oneIn(weather.doubledOneIn) ? 2 : 1
    if (copies === 2) this.counts.doubled += 1
    for (let copy = 0; copy < copies; copy++) {
      let ms = chance.between(weather.delayMsMin, weather.delayMsMax)
      if (weather.lateOneIn > 0 && chance.oneIn(weather.lateOneIn)) {
        this.counts.late += 1
        ms += chance.between(1, weather.lateMsMax)
      }
      if (isLost) continue
      const arrived = (): void => {
        if (!this.isCut(from, to)) arrive()
      }
      if (isQuiet) this.#time.quietlyAfter(ms, arrived)
      else this.#time.after(ms, arrived)
    }
  }

  openLine(from: string, to: string): Line {
    return new Line(this, this.#time, from, to)
  }
}

/** One direction of a connection: what is pushed arrives in order and once, unless the line is closed before. */
export class Line {
  readonly #network: SimulatedNetwork
  readonly #time: SimulatedTime
  readonly #from: string
  readonly #to: string
  /** Timers that send again what was not acknowledged. */
  readonly #unacknowledged = new Map<number, Timer>()
  readonly #early = new Map<number, () => void>()
  #nextOut = 0
  #nextIn = 0
  isClosed = false
  /** Returns whether somebody waited for it. */
  onAcknowledged: () => boolean = () => false

  constructor(network: SimulatedNetwork, time: SimulatedTime, from: string, to: string) {
    this.#network = network
    this.#time = time
    this.#from = from
    this.#to = to
  }

  /** Messages that have not been acknowledged yet. */
  get waitingCount(): number {
    return this.#unacknowledged.size
  }

  push(arrive: () => void): void {
    if (this.isClosed) return
    this.#transmit(this.#nextOut++, arrive, resendMs)
  }

  close(): void {
    this.isClosed = true
    for (const timer of this.#unacknowledged.values()) timer.cancelled = true
    this.#unacknowledged.clear()
    this.#early.clear()
  }

  #transmit(number: number, arrive: () => void, againMs: number): void {
    this.#network.send(this.#from, this.#to, () => this.#arrived(number, arrive))
    if (this.#from === this.#to) return
    const again = this.#time.after(againMs, () =>
      this.#transmit(number, arrive, Math.min(resendMsMax, 2 * againMs)),
    )
    this.#unacknowledged.set(number, again)
  }

  #acknowledged(number: number): void {
    const timer = this.#unacknowledged.get(number)
    if (timer) timer.cancelled = true
    this.#unacknowledged.delete(number)
    if (this.onAcknowledged()) this.#time.disturb()
  }

  #arrived(number: number, arrive: () => void): void {
    if (this.isClosed) return
    if (this.#from !== this.#to)
      this.#network.send(this.#to, this.#from, () => this.#acknowledged(number), true)
    if (number < this.#nextIn || this.#early.has(number)) return
    if (number === this.#nextIn) {
      this.#nextIn += 1
      arrive()
      if (this.isClosed) return
    } else this.#early.set(number, arrive)
    if (this.#early.size === 0) return
    for (let next = this.#early.get(this.#nextIn); next; next = this.#early.get(this.#nextIn)) {
      this.#early.delete(this.#nextIn)
      this.#nextIn += 1
      next()
      if (this.isClosed) return
    }
  }
}

/** Delivers to a process what arrives at its machine. */
export function into(process: SimulatedProcess, work: () => void): () => void {
  return () => process.post(work)
}
