import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { ServiceSpecBody } from '../compose/index.ts'
import { diffSpecs } from './spec-diff.ts'

const base: ServiceSpecBody = {
  Name: 'shop_web',
  Labels: { 'com.docker.stack.namespace': 'shop' },
  TaskTemplate: {
    ContainerSpec: {
      Image: 'web:1',
      Env: ['A=1', 'B=2=3'],
      Secrets: [
        {
          File: { Name: 'key', UID: '0', GID: '0', Mode: 0o444 },
          SecretID: 'a',
          SecretName: 'shop_key',
        },
      ],
    },
    Placement: { Constraints: ['node.role==worker'] },
    Networks: [{ Target: 'shop_front', Aliases: ['web'] }],
    ForceUpdate: 0,
  },
  Mode: { Replicated: {} },
  EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: 8080, Protocol: 'tcp' }] },
}

function changed(change: (spec: ServiceSpecBody) => void): ServiceSpecBody {
  const copy = structuredClone(base)
  change(copy)
  return copy
}

describe('the difference of two declarations', () => {
  test('what is empty or left out, forced restarts and ids of networks are none', () => {
    const after = changed((spec) => {
      spec.TaskTemplate.ForceUpdate = 3
      spec.TaskTemplate.ContainerSpec.TTY = false
      spec.TaskTemplate.ContainerSpec.Hostname = ''
      spec.TaskTemplate.ContainerSpec.Isolation = 'default'
      spec.TaskTemplate.Runtime = 'container'
      spec.TaskTemplate.ContainerSpec.Env = ['B=2=3', 'A=1']
      spec.TaskTemplate.Networks = [{ Target: 'n1', Aliases: ['web'] }]
      spec.Mode = { Replicated: { Replicas: 1 } }
    })
    const name = (target: string) => (target === 'n1' ? 'shop_front' : target)
    assert.deepEqual(diffSpecs(base, after, name), [])
  })

  test('fields are told in the words of stack files, with what restarts tasks', () => {
    const after = changed((spec) => {
      spec.TaskTemplate.ContainerSpec.Image = 'web:2'
      spec.TaskTemplate.ContainerSpec.Env = ['A=2', 'C=']
      spec.TaskTemplate.Placement = {}
      spec.Mode = { Replicated: { Replicas: 3 } }
      spec.Labels['team'] = 'red'
      spec.EndpointSpec = { Ports: [{ TargetPort: 80, PublishedPort: 9090, Protocol: 'tcp' }] }
      const [secret] = spec.TaskTemplate.ContainerSpec.Secrets ?? []
      if (secret) secret.SecretName = 'shop_key-2'
    })
    const lines = diffSpecs(base, after).map(
      ({ field, before, after: is, restarts }) =>
        `${field}: ${before} > ${is}${restarts ? ' *' : ''}`,
    )
    assert.deepEqual(lines, [
      'ports.8080:80/tcp: yes > undefined *',
      'ports.9090:80/tcp: undefined > yes *',
      'deploy.labels.team: undefined > red',
      'deploy.replicas: 1 > 3',
      'environment.A: 1 > 2 *',
      'environment.B: 2=3 > undefined *',
      'environment.C: undefined >  *',
      'image: web:1 > web:2 *',
      'secrets.key: File.UID=0 File.GID=0 File.Mode=292 SecretName=shop_key > File.UID=0 File.GID=0 File.Mode=292 SecretName=shop_key-2 *',
      'deploy.placement.Constraints: node.role==worker > undefined',
    ])
  })
})
