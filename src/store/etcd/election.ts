import { type Clock, type Log, messageOf, WakeUp } from '../../base/index.ts'
import { type EtcdClient, EtcdError, type KeyValue } from './client.ts'
import { defaultPrefix, Layout } from './layout.ts'

export interface Candidate {
  /** The node's id. */
  readonly id: string
  /** Where the others reach it, when it leads. */
  readonly address: string
}

export interface Leader extends Candidate {
  readonly epoch: number
}

export interface ElectionOptions {
  readonly client: EtcdClient
  readonly clock: Clock
  readonly log: Log
  readonly candidate: Candidate
  /** As the store's. */
  readonly prefix?: string
  /** Silence after which a leader is replaced, in s. Default 2: three missed renewals. */
  readonly ttlSeconds?: number
}

/** What a leader holds. Every leadership has an epoch of its own, greater than all before: the fence of its writes. */
export interface Leadership {
  readonly epoch: number
  /** Aborts as soon as this node can no longer be sure to lead: its lease ended, or may have ended. */
  readonly lost: AbortSignal
  /** Gives leadership up at once, so that another one takes over without waiting. */
  resign(): Promise<void>
}

export interface Election {
  /** Who leads, as far as this node knows. */
  readonly leader: Leader | undefined
  /** Calls back when another one leads, or nobody. Returns the way to stop. */
  subscribe(listener: (leader: Leader | undefined) => void): () => void
  /** Waits until this node leads; undefined when `signal` aborts. One at a time, and anew after each loss. */
  campaign(signal: AbortSignal): Promise<Leadership | undefined>
  /**
   * Takes leadership from the leader of this epoch, for whoever campaigns: its end is known before that of its lease. It
   * is fenced off like any other. Resolves when that one leads no longer, or `signal` aborts.
   */
  depose(epoch: number, signal: AbortSignal): Promise<void>
  close(): Promise<void>
}

const defaultTtlSeconds = 2
const retryMs = 100
/** Longest wait for one answer, in ms. */
const attemptMs = 1_000
/** A leader key is looked at again after so long without a word from the watch, in ms. */
const lookAgainMs = 5_000

/** Takes part in electing the leader among managers: one key on a lease says who leads. */
export function openElection(options: ElectionOptions): Election {
  return new LeaseElection(options)
}

class LeaseElection implements Election {
  readonly #client: EtcdClient
  readonly #clock: Clock
  readonly #log: Log
  readonly #candidate: Candidate
  readonly #layout: Layout
  readonly #ttlSeconds: number
  readonly #closed = new AbortController()
  readonly #listeners = new Set<(leader: Leader | undefined) => void>()
  readonly #changed = new WakeUp()
  readonly #watching: Promise<void>
  #kv: KeyValue | undefined
  #leader: Leader | undefined
  /** The lease that this node leads with. */
  #ownLeaseId: string | undefined
  #lose: ((why: string) => void) | undefined

  constructor(options: ElectionOptions) {
    this.#client = options.client
    this.#clock = options.clock
    this.#log = options.log
    this.#candidate = options.candidate
    this.#layout = new Layout(options.prefix ?? defaultPrefix)
    this.#ttlSeconds = options.ttlSeconds ?? defaultTtlSeconds
    this.#watching = this.#observe()
  }

  get leader(): Leader | undefined {
    return this.#leader
  }

  subscribe(listener: (leader: Leader | undefined) => void): () => void {
    const own = (leader: Leader | undefined): void => listener(leader)
    this.#listeners.add(own)
    return () => this.#listeners.delete(own)
  }

  async close(): Promise<void> {
    this.#closed.abort()
    this.#changed.ring()
    this.#lose?.('the election was closed')
    await this.#watching
  }

  /** Keeps up with who leads. */
  async #observe(): Promise<void> {
    const { signal } = this.#closed
    const key = this.#layout.leader
    while (!signal.aborted) {
      const done = new AbortController()
      try {
        const { kvs, revision } = await this.#client.range({ key }, { signal })
        this.#see(kvs[0])
        const stop = AbortSignal.any([signal, done.signal])
        for await (const { events } of this.#client.watch(
          { key, fromRevision: revision + 1 },
          stop,
        )) {
          for (const event of events) this.#see(event.type === 'put' ? event.kv : undefined)
        }
      } catch (error) {
        if (signal.aborted) return
        this.#log.debug('watch of the leader ended; watching again', { error: messageOf(error) })
      } finally {
        done.abort()
      }
      await this.#clock.sleep(retryMs, signal)
    }
  }

  #see(kv: KeyValue | undefined): void {
    this.#kv = kv
    const leader = kv && parseLeader(kv.value)
    if (this.#ownLeaseId !== undefined && kv?.leaseId !== this.#ownLeaseId && this.#lose) {
      // A watch may still be telling of what was before.
      if (leader === undefined || leader.epoch > (this.#ownEpoch ?? 0)) {
        this.#lose('another one leads, or the lease has ended')
      }
    }
    const isSame = leader?.id === this.#leader?.id && leader?.epoch === this.#leader?.epoch
    this.#leader = leader
    this.#changed.ring()
    if (!isSame) for (const listener of this.#listeners) listener(leader)
  }
  #ownEpoch: number | undefined

  async campaign(signal: AbortSignal): Promise<Leadership | undefined> {
    const stop = AbortSignal.any([signal, this.#closed.signal])
    while (!stop.aborted) {
      try {
        const leadership = await this.#try(stop)
        if (leadership) return leadership
      } catch (error) {
        if (stop.aborted) return undefined
        if (!(error instanceof EtcdError)) throw error
        this.#log.debug('no leader could be elected', { error: messageOf(error) })
        await this.#clock.sleep(retryMs, stop)
      }
    }
    return undefined
  }

  /** Takes leadership if nobody has it; else waits until that may have changed. */
  async #try(signal: AbortSignal): Promise<Leadership | undefined> {
    const { leader: leaderKey, epoch: epochKey } = this.#layout
    const call = { signal, deadlineMs: attemptMs }
    const { results } = await this.#client.txn(
      {
        when: [],
        apply: [leaderKey, epochKey].map((key) => ({ type: 'range', key }) as const),
      },
      call,
    )
    const [held, counted] = results.map((result) =>
      result.type === 'range' ? result.kvs[0] : undefined,
    )
    // Its own former self it need not wait for: that one is fenced off like any other.
    if (held && parseLeader(held.value)?.id !== this.#candidate.id) {
      if (this.#kv?.modRevision === held.modRevision) {
        await this.#changed.wait(this.#clock, signal, this.#clock.nowMs() + lookAgainMs)
      } else await this.#clock.sleep(retryMs, signal)
      return undefined
    }
    const askedAtMs = this.#clock.nowMs()
    const lease = await this.#client.leaseGrant(this.#ttlSeconds, call)
    const epoch = Number(counted?.value ?? 0) + 1
    const leader: Leader = { ...this.#candidate, epoch }
    const isElected = await this.#take(leader, lease.leaseId, held, counted, call)
    if (!isElected || signal.aborted) {
      await this.#revoke(lease.leaseId)
      return undefined
    }
    this.#log.info('this node leads now', { epoch })
    return this.#lead(epoch, lease.leaseId, askedAtMs)
  }

  async depose(epoch: number, signal: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, this.#closed.signal])
    const key = this.#layout.leader
    while (!stop.aborted && this.#leader?.epoch === epoch) {
      const call = { signal: stop, deadlineMs: attemptMs }
      try {
        const [held] = (await this.#client.range({ key }, call)).kvs
        if (!held || parseLeader(held.value)?.epoch !== epoch) return
        const { succeeded } = await this.#client.txn(
          {
            when: [{ key, target: 'modRevision', is: '=', to: held.modRevision }],
            apply: [{ type: 'delete', key }],
          },
          call,
        )
        if (succeeded) return
      } catch (error) {
        if (stop.aborted) return
        // Its etcd may have led too: the others are agreeing on another one.
        if (!(error instanceof EtcdError)) throw error
        await this.#clock.sleep(retryMs, stop)
      }
    }
  }

  async #take(
    leader: Leader,
    leaseId: string,
    held: KeyValue | undefined,
    counted: KeyValue | undefined,
    call: { readonly signal: AbortSignal; readonly deadlineMs: number },
  ): Promise<boolean> {
    const { leader: leaderKey, epoch: epochKey } = this.#layout
    try {
      const { succeeded } = await this.#client.txn(
        {
          when: [
            { key: leaderKey, target: 'modRevision', is: '=', to: held?.modRevision ?? 0 },
            { key: epochKey, target: 'modRevision', is: '=', to: counted?.modRevision ?? 0 },
          ],
          apply: [
            { type: 'put', key: leaderKey, value: JSON.stringify(leader), leaseId },
            { type: 'put', key: epochKey, value: String(leader.epoch) },
          ],
        },
        call,
      )
      return succeeded
    } catch (error) {
      if (!(error instanceof EtcdError && error.reason === 'outcomeUnknown')) throw error
      // If it comes late, the lease has been revoked by then, and it is refused.
      const { kvs } = await this.#client.range({ key: leaderKey }, call)
      return kvs[0]?.leaseId === leaseId
    }
  }

  async #revoke(leaseId: string): Promise<void> {
    try {
      await this.#client.leaseRevoke(leaseId, { deadlineMs: attemptMs })
    } catch (error) {
      // It ends by itself.
      this.#log.debug('lease was not revoked', { error: messageOf(error) })
    }
  }

  #lead(epoch: number, leaseId: string, askedAtMs: number): Leadership {
    const lost = new AbortController()
    this.#ownLeaseId = leaseId
    this.#ownEpoch = epoch
    const lose = (why: string): void => {
      if (lost.signal.aborted) return
      this.#log.warn('this node no longer leads', { epoch, why })
      this.#ownLeaseId = undefined
      this.#ownEpoch = undefined
      this.#lose = undefined
      lost.abort()
    }
    this.#lose = lose
    void this.#renew(leaseId, askedAtMs, lost.signal, lose)
    return {
      epoch,
      lost: lost.signal,
      resign: async () => {
        lose('it resigned')
        await this.#revoke(leaseId)
      },
    }
  }

  /** Keeps the lease for as long as it leads. The lease is sure only until its time after the last renewal was asked for. */
  async #renew(
    leaseId: string,
    askedAtMs: number,
    lost: AbortSignal,
    lose: (why: string) => void,
  ): Promise<void> {
    const ttlMs = this.#ttlSeconds * 1000
    let sureUntilMs = askedAtMs + ttlMs
    void (async () => {
      while (!lost.aborted) {
        const leftMs = sureUntilMs - this.#clock.nowMs()
        if (leftMs > 0) await this.#clock.sleep(leftMs, lost)
        else lose('its lease was not renewed in time')
      }
    })()
    while (!lost.aborted) {
      await this.#clock.sleep(ttlMs / 4, lost)
      if (lost.aborted) return
      const nowMs = this.#clock.nowMs()
      if (nowMs >= sureUntilMs) {
        lose('its lease was not renewed in time')
        return
      }
      try {
        await this.#client.leaseKeepAlive(leaseId, {
          signal: lost,
          deadlineMs: Math.min(attemptMs, sureUntilMs - nowMs),
        })
        // An answer that was read too late, because this process stood still, proves nothing.
        if (this.#clock.nowMs() < sureUntilMs) sureUntilMs = nowMs + ttlMs
      } catch (error) {
        if (error instanceof EtcdError && error.reason === 'leaseNotFound') lose('its lease ended')
        else this.#log.debug('lease was not renewed', { error: messageOf(error) })
      }
    }
  }
}

function parseLeader(text: string): Leader | undefined {
  const leader: unknown = JSON.parse(text)
  if (
    typeof leader === 'object' &&
    leader !== null &&
    'id' in leader &&
    typeof leader.id === 'string' &&
    'address' in leader &&
    typeof leader.address === 'string' &&
    'epoch' in leader &&
    typeof leader.epoch === 'number'
  ) {
    return { id: leader.id, address: leader.address, epoch: leader.epoch }
  }
  return undefined
}
