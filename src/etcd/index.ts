export type { EtcdFiles } from './etcd-flags.ts'
export {
  type EtcdBegin,
  type EtcdProcess,
  type EtcdProcessOptions,
  startEtcd,
  waitForEtcd,
} from './etcd-process.ts'
export { addMember, promoteMember, removeMember, updateMember } from './members.ts'
