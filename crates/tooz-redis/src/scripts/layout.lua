-- The layout that a namespace is kept in, where it is another than the one of these scripts: then nothing is read or written by them.
local function foreign_layout()
  local layout = call('GET', prefix .. 'layout')
  if layout and layout ~= '1' then
    return { 'layout', layout }
  end
end
