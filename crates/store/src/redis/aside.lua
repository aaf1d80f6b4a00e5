-- Moves a record that cannot be read to a key of its own, so that nobody overwrites it.
--
-- KEYS  1 index (a hash: id -> rest of the record's key)
-- ARGV  1 prefix of all keys   2 id   3 rest of the key, both as the index has them   4 record | entry
-- Where only the entry of the index is wrong, or there is nothing under the key, the entry itself is kept.

local prefix, id, rest = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', KEYS[1], id) ~= rest then return 'gone' end

local from, ours = prefix .. rest, string.match(rest, '^instance:') or string.match(rest, '^evicted:')
if ARGV[4] == 'entry' or not ours or redis.call('EXISTS', from) == 0 then
  redis.call('HSET', prefix .. 'damaged:index', id, rest)
else
  local to, number = prefix .. 'damaged:' .. rest, 1
  while redis.call('EXISTS', to) == 1 do
    number = number + 1
    to = prefix .. 'damaged:' .. rest .. ':' .. number
  end
  redis.call('RENAME', from, to)
  redis.call('PERSIST', to)
end
redis.call('HDEL', KEYS[1], id)
return 'moved'
