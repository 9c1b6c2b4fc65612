import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Clock, TurnBudget } from '../base/index.ts'
import { idFrom } from '../model/index.ts'
import { type Router, RoutingRounds, type SharedPart } from './routing-rounds.ts'

/** Waits end when the test says so, one after the other. */
class SteppedClock implements Clock {
  readonly waits: { readonly ms: number; readonly end: () => void }[] = []
  nowMs(): number {
    return 0
  }
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.waits.push({ ms, end: resolve })
    })
  }
  async step(): Promise<number | undefined> {
    const wait = this.waits.shift()
    wait?.end()
    await new Promise((resolve) => setImmediate(resolve))
    return wait?.ms
  }
}

class TestRouter implements Router {
  readonly told: string[] = []
  touchShared(parts: readonly SharedPart[], sinceRevision: number): void {
    this.told.push(`${parts.map(({ id }) => id).join('+')}@${sinceRevision}`)
  }
}

function open(count: number) {
  const clock = new SteppedClock()
  const routers = Array.from({ length: count }, () => new TestRouter())
  const onNetwork = new Map([['x', routers.slice(0, 2)]])
  const rounds = new RoutingRounds({
    clock,
    signal: new AbortController().signal,
    turns: new TurnBudget(clock),
    everyone: () => routers,
    onNetwork: (id) => onNetwork.get(id) ?? [],
    handedOut: () => {},
  })
  return { clock, routers, rounds }
}
const a: SharedPart = { type: 'endpoint', id: idFrom('a') }
const b: SharedPart = { type: 'neighbour', id: 'b', networkId: idFrom('x') }

describe('rounds of endpoints and neighbours', () => {
  test('a few nodes are told at once, each time', () => {
    const { rounds, routers } = open(3)
    rounds.mark(a, 'everyone', 1)
    assert.equal(rounds.pendingSinceRevision, undefined)
    rounds.mark(b, [idFrom('x')], 2)
    assert.deepEqual(
      routers.map(({ told }) => told),
      [['a@1', 'b@2'], ['a@1', 'b@2'], ['a@1']],
    )
  })

  test('many nodes are told in parts, and what changes meanwhile goes out as one', async () => {
    const { clock, rounds, routers } = open(1_500)
    const toldCount = () => routers.filter(({ told }) => told.length > 0).length
    rounds.mark(a, 'everyone', 1)
    assert.ok(toldCount() > 0 && toldCount() < 1_500)
    assert.equal(rounds.pendingSinceRevision, 1)
    while (toldCount() < 1_500) assert.equal(await clock.step(), 0)
    assert.equal(rounds.pendingSinceRevision, undefined, 'everybody was told')
    rounds.mark(a, 'everyone', 2)
    rounds.mark(b, [idFrom('x')], 3)
    rounds.mark(a, 'everyone', 4)
    assert.equal(rounds.pendingSinceRevision, 2, 'the oldest change that waits')
    assert.equal(await clock.step(), 150, 'the pause after 1,500 nodes')
    const last = routers[1_499]
    while (last?.told.length === 1) await clock.step()
    assert.deepEqual(routers[0]?.told, ['a@1', 'a@2', 'b@2'])
    assert.deepEqual(last?.told, ['a@1', 'a@2'])
    assert.equal(rounds.pendingSinceRevision, undefined)
  })
})
