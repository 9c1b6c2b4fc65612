import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { steadyClock } from './steady-clock.ts'

describe('a steady clock', () => {
  const open = () => {
    const at = { wallMs: 1_000_000, elapsedMs: 0 }
    const clock = steadyClock({ wallMs: () => at.wallMs, elapsedMs: () => at.elapsedMs })
    const pass = (ms: number) => {
      at.wallMs += ms
      at.elapsedMs += ms
    }
    return { at, clock, pass }
  }

  test('is the wall clock while nobody sets that', () => {
    const { clock, pass } = open()
    pass(1_234)
    assert.equal(clock.nowMs(), 1_001_234)
  })

  test('follows it forth at once', () => {
    const { at, clock } = open()
    clock.nowMs()
    at.wallMs += 3_600_000
    assert.equal(clock.nowMs(), 4_600_000)
  })

  test('neither goes back nor stands still when it is set back, and meets it again', () => {
    const { at, clock, pass } = open()
    clock.nowMs()
    at.wallMs -= 60_000
    assert.equal(clock.nowMs(), 1_000_000)
    pass(10_000)
    assert.equal(clock.nowMs(), 1_009_000)
    pass(1_000_000)
    assert.equal(clock.nowMs(), at.wallMs)
  })

  test('is not before what somebody else has written down', () => {
    const { clock, pass } = open()
    clock.notBefore(1_000_500)
    assert.equal(clock.nowMs(), 1_000_500)
    clock.notBefore(5)
    pass(100)
    assert.equal(clock.nowMs(), 1_000_590)
  })
})
