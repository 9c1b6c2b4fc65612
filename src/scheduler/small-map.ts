/**
 * A map that mostly has one entry or none, which takes no room of its own then: there may be tens of thousands. In the order in
 * which keys came, as a Map.
 */
export class SmallMap<Key, Value> {
  /** The only one, while there is no map. */
  #only: readonly [Key, Value] | undefined
  #map: Map<Key, Value> | undefined

  get size(): number {
    return this.#map?.size ?? (this.#only ? 1 : 0)
  }

  get(key: Key): Value | undefined {
    if (this.#map) return this.#map.get(key)
    return this.#only?.[0] === key ? this.#only[1] : undefined
  }

  has(key: Key): boolean {
    return this.#map ? this.#map.has(key) : this.#only !== undefined && this.#only[0] === key
  }

  set(key: Key, value: Value): void {
    if (this.#map) this.#map.set(key, value)
    else if (!this.#only || this.#only[0] === key) this.#only = [key, value]
    else {
      this.#map = new Map([this.#only, [key, value]])
      this.#only = undefined
    }
  }

  delete(key: Key): void {
    if (this.#map) this.#map.delete(key)
    else if (this.#only?.[0] === key) this.#only = undefined
  }

  [Symbol.iterator](): IterableIterator<readonly [Key, Value]> {
    return (this.#map ?? (this.#only ? [this.#only] : []))[Symbol.iterator]()
  }

  values(): IterableIterator<Value> {
    return this.#map?.values() ?? (this.#only ? [this.#only[1]] : []).values()
  }
}
