import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { etcdFlags } from './etcd-flags.ts'

describe('flags of etcd', () => {
  const options = {
    name: 'n',
    peerListenUrl: 'https://0.0.0.0:2380',
    peerUrl: 'https://10.0.0.1:2380',
    files: { certificatePath: 'c', keyPath: 'k', rootsPath: 'r', requiredName: 'm' },
    begin: { type: 'restart' },
  } as const

  for (const { version, has, hasNot } of [
    { version: '3.4.23', has: '--logger=zap', hasNot: '--peer-skip-client-san-verification=true' },
    {
      version: '3.5.21',
      has: '--experimental-watch-progress-notify-interval=1s',
      hasNot: '--logger=zap',
    },
    {
      version: '3.6.5',
      has: '--watch-progress-notify-interval=1s',
      hasNot: '--experimental-peer-skip-client-san-verification=true',
    },
  ]) {
    test(`are those that ${version} knows`, () => {
      const flags = etcdFlags({ ...options, version })
      assert.ok(flags.includes(has))
      assert.ok(!flags.includes(hasNot))
      assert.ok(flags.includes('--peer-client-cert-auth=true'))
    })
  }
})
