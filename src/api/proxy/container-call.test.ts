import assert from 'node:assert/strict'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { describe, test } from 'node:test'
import { callerHeader, containerCallOf, nameCaller, recordOf } from './container-call.ts'

function requestOf(method: string, url: string, body?: unknown): IncomingMessage {
  const request = new IncomingMessage(new Socket())
  Object.assign(request, { method, url })
  if (body !== undefined) request.push(JSON.stringify(body))
  request.push(null)
  return request
}

async function recordFor(method: string, url: string, body?: unknown) {
  const request = requestOf(method, url, body)
  const call = containerCallOf(request)
  return call && (await recordOf(call, request)).record
}

describe('calls about containers', () => {
  test('are told from others', () => {
    for (const url of [
      '/info',
      '/containers/json',
      '/v1.41/containers/json?all=1',
      '/images/a/json',
    ])
      assert.equal(containerCallOf({ method: 'GET', url }), undefined)
    assert.equal(containerCallOf({ method: 'POST', url: '/containers/create?name=a' }), undefined)
    assert.deepEqual(
      containerCallOf({ method: 'GET', url: '/v1.41/containers/a%2Eb/json?size=1' }),
      {
        ...{ about: 'container', name: 'a.b', method: 'GET', verb: 'json' },
      },
    )
    assert.deepEqual(containerCallOf({ method: 'POST', url: '/exec/e1/start' }), {
      ...{ about: 'command', name: 'e1', method: 'POST', verb: 'start' },
    })
  })

  test('are recorded where they change or take something, with no values and no input', async () => {
    const body = {
      Cmd: ['sh', '-c', 'id'],
      Env: ['PASSWORD=hidden'],
      User: 'root',
      Privileged: true,
      Tty: true,
    }
    assert.deepEqual(await recordFor('POST', '/v1.44/containers/a/exec', body), {
      ...{ what: 'run a command', command: ['sh', '-c', 'id'], user: 'root', privileged: true },
    })
    assert.deepEqual(await recordFor('PUT', '/containers/a/archive?path=%2Ftmp&x=1'), {
      ...{ what: 'copy in', path: '/tmp' },
    })
    assert.deepEqual(await recordFor('DELETE', '/containers/a?force=1'), { what: 'remove' })
    for (const url of ['/containers/a/json', '/containers/a/logs?follow=1', '/exec/a/json'])
      assert.equal(await recordFor('GET', url), undefined)
    assert.equal(await recordFor('POST', '/exec/a/start', {}), undefined)
  })

  test('go on with the body that was read, and a longer one is refused', async () => {
    const request = requestOf('POST', '/containers/a/exec', { Cmd: ['true'] })
    const call = containerCallOf(request)
    assert.ok(call)
    let text = ''
    for await (const part of (await recordOf(call, request)).request) text += part
    assert.equal(text, '{"Cmd":["true"]}')
    const long = requestOf('POST', '/containers/a/exec', { Cmd: ['x'.repeat(2_000_000)] })
    await assert.rejects(recordOf(call, long), /too long/)
  })

  test('name who calls, whatever the call says itself', () => {
    const request = requestOf('GET', '/containers/a/json')
    request.rawHeaders.push('skep-caller', 'somebody else', 'X', '1')
    nameCaller(request, 'me\r\nX: 2')
    assert.deepEqual(request.rawHeaders, ['X', '1', callerHeader, 'me??X: 2'])
  })
})
