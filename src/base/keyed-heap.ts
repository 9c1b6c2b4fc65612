/**
 * Keys in order of their ranks, smallest first: a binary heap that knows where each key lies, so that a rank can be
 * changed or taken out. O(log n) a change, O(1) for the first.
 */
export class KeyedHeap<Key> {
  readonly #keys: Key[] = []
  readonly #ranks: number[] = []
  readonly #placeByKey = new Map<Key, number>()

  get size(): number {
    return this.#keys.length
  }

  /** The smallest rank; `undefined` when empty. */
  get firstRank(): number | undefined {
    return this.#ranks[0]
  }

  rankOf(key: Key): number | undefined {
    const place = this.#placeByKey.get(key)
    return place === undefined ? undefined : this.#ranks[place]
  }

  /** Adds a key, or gives it another rank. */
  set(key: Key, rank: number): void {
    const place = this.#placeByKey.get(key) ?? this.#keys.length
    this.#settle(place, key, rank)
  }

  /** Answers whether the key was there. */
  delete(key: Key): boolean {
    const place = this.#placeByKey.get(key)
    if (place === undefined) return false
    this.#placeByKey.delete(key)
    const lastKey = this.#keys.pop()
    const lastRank = this.#ranks.pop()
    if (lastKey !== undefined && lastRank !== undefined && place < this.#keys.length) {
      this.#settle(place, lastKey, lastRank)
    }
    return true
  }

  /** Takes out every key of at most this rank, in order. */
  takeUpTo(rank: number): readonly Key[] {
    const taken: Key[] = []
    for (let key = this.#keys[0]; key !== undefined; key = this.#keys[0]) {
      const first = this.#ranks[0]
      if (first === undefined || first > rank) break
      taken.push(key)
      this.delete(key)
    }
    return taken
  }

  /** Puts a key where its rank belongs, beginning at a place that is free. */
  #settle(from: number, key: Key, rank: number): void {
    let place = from
    while (place > 0) {
      const parent = (place - 1) >> 1
      if (this.#rankAt(parent) <= rank) break
      this.#move(parent, place)
      place = parent
    }
    for (;;) {
      let child = 2 * place + 1
      if (child >= this.#keys.length) break
      if (this.#rankAt(child + 1) < this.#rankAt(child)) child++
      if (this.#rankAt(child) >= rank) break
      this.#move(child, place)
      place = child
    }
    this.#keys[place] = key
    this.#ranks[place] = rank
    this.#placeByKey.set(key, place)
  }

  #rankAt(place: number): number {
    return this.#ranks[place] ?? Number.POSITIVE_INFINITY
  }

  #move(from: number, to: number): void {
    const key = this.#keys[from]
    if (key === undefined) return
    this.#keys[to] = key
    this.#ranks[to] = this.#rankAt(from)
    this.#placeByKey.set(key, to)
  }
}
