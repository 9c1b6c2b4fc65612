export { type BackupContents, readBackup, writeBackup } from './contents.ts'
export { decideRestored } from './restored.ts'
